"""Globs and regular expressions over UTF-8, matched in time linear in the text by RE2.

A backtracking engine would let one pattern hold a process for as long as it likes. Linear it is, but where
the states of a pattern do not fit in memory each byte costs up to as much as the program has instructions:
so the program is bounded, and with it how long one text may take, and between texts the deadline is asked.
Imports deadline and limits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import re2

from vecstore import deadline
from vecstore.limits import MAX_PATTERN_INSTRUCTIONS, MAX_PATTERN_MEMORY

PatternKind = Literal["glob", "iglob", "regex"]

TOO_LARGE: Final = "pattern too large"  # as RE2 says that a program does not fit in the memory for it


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern; make it with `compile_pattern`.

    A glob matches a whole text: ``*`` any characters, ``?`` one, ``[abc]``, ``[a-z]`` and ``[!a-z]`` one
    of a set. ``iglob`` is the same whatever the case. A regular expression, in RE2's syntax, may match
    anywhere in a text; ``^`` and ``$`` hold it to the ends.
    """

    kind: PatternKind
    text: str

    @property
    def prefix(self) -> bytes:
        """What every text begins with that it matches."""
        if self.kind != "glob":
            return b""
        plain = len(self.text)
        for special in "*?[":
            found = self.text.find(special)
            plain = plain if found < 0 else min(plain, found)
        return self.text[:plain].encode()

    def matches(self, text: bytes) -> bool:
        """Whether it matches a text; `DeadlineExceeded` once nobody waits for it."""
        deadline.check()
        found: object = _compiled(self.kind, self.text).search(text)
        return found is not None


class PatternTooLarge(ValueError):
    """A pattern of more than `MAX_PATTERN_INSTRUCTIONS`."""


def compile_pattern(kind: PatternKind, text: str) -> Pattern:
    """`ValueError` says what is wrong with it; `PatternTooLarge` is one."""
    if _compiled(kind, text).programsize > MAX_PATTERN_INSTRUCTIONS:
        raise PatternTooLarge
    return Pattern(kind, text)


@lru_cache(maxsize=256)
def _compiled(kind: PatternKind, text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = MAX_PATTERN_MEMORY
    options.case_sensitive = kind != "iglob"
    options.dot_nl = kind != "regex"
    try:
        return re2.compile(text if kind == "regex" else _from_glob(text), options=options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        told = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        raise (PatternTooLarge if told.startswith(TOO_LARGE) else ValueError)(told) from error


def _from_glob(text: str) -> str:
    """A glob as a regular expression."""
    out, i = [r"\A"], 0
    while i < len(text):
        c = text[i]
        i += 1
        if c == "*":
            out.append(".*")
        elif c == "?":
            out.append(".")
        elif c == "[":
            end = text.find("]", i + (2 if text[i : i + 1] == "!" else 1))
            if end < 0:
                raise ValueError("[ without ]")
            inside = text[i:end]
            negated = inside.startswith("!")
            inside = inside[1:] if negated else inside
            escaped = "".join(rf"\{ch}" if ch in r"\[]^&~|" else ch for ch in inside)
            out.append(f"[{'^' if negated else ''}{escaped}]")
            i = end + 1
        else:
            out.append(re2.escape(c))
    return "".join(out) + r"\z"
