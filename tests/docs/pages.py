"""Runs what a page of the documentation shows.

``python`` and ``sh`` blocks of a page run in their order, in one fresh folder: Python in one interpreter, so
that a block sees the names of those before it, shell each in a process of its own. A ``text`` block right
after one of them is its output, where ``...`` stands for anything. What a page needs and need not show stands
in a comment, ``<!-- run`` and a line of ``-->``: Python that runs in its place. Port 8080 becomes a free one.

Blocks of other languages do not run; JSON and TOML are parsed.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BLOCK = re.compile(
    r"^(?P<fence>```+)(?P<language>[a-z]+)\n(?P<shown>.*?)^(?P=fence)$|^<!-- run\n(?P<hidden>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)
SECONDS = 120.0


@dataclass(frozen=True)
class Block:
    """A fenced block, or a hidden one."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """Every block of a page, in order."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(source):
        line = source.count("\n", 0, match.start()) + 2
        hidden = match["hidden"]
        language, text = ("python", hidden) if hidden is not None else (match["language"], match["shown"])
        found.append(Block(language, text, line))
    return found


class Runner:
    """Runs the blocks of one page in a folder."""

    def __init__(self, page: Path, folder: Path, environment: dict[str, str]) -> None:
        self._page = page
        self._folder = folder
        self._environment = environment
        self._names: dict[str, Any] = {"__name__": "__main__"}
        self._groups: list[int] = []
        self._port = _free_port()

    def run(self) -> None:
        """Run everything; an error names page and line."""
        output = None
        for block in blocks(self._page):
            place = f"{self._page.name}:{block.line}"
            text = block.text.replace("8080", str(self._port))
            if block.language == "python":
                output = self._python(text, block, place)
            elif block.language == "sh":
                output = self._shell(text, place)
            elif block.language == "text" and output is not None:
                told = output.replace(str(self._port), "8080")
                assert fits(block.text, told), f"{place}: what comes is\n{told}"
                output = None
            else:
                output = None
                _parse(block, place)

    def close(self) -> None:
        """End what shell blocks left in the background."""
        for group in self._groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
        for group in self._groups:
            with contextlib.suppress(ChildProcessError):
                while True:
                    os.waitpid(-group, 0)

    def _python(self, text: str, block: Block, place: str) -> str:
        code = compile("\n" * (block.line - 1) + text, str(self._page), "exec")
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.chdir(self._folder), _variables(self._environment):
            try:
                exec(code, self._names)  # our own pages
            except Exception as error:
                error.add_note(f"in {place}")
                raise
        return told.getvalue()

    def _shell(self, text: str, place: str) -> str:
        log = self._folder / ".output"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with log.open("wb") as output:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=self._folder,
                env={**os.environ, **self._environment, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(shell.pid)
            status = shell.wait(SECONDS)
        told = log.read_text(encoding="utf-8", errors="replace")
        assert status == 0, f"{place}: status {status}\n{told}"
        return told


def _parse(block: Block, place: str) -> None:
    try:
        if block.language == "json":
            at = 0
            while block.text[at:].strip():  # one value after another
                at = json.JSONDecoder().raw_decode(block.text, at)[1]
                at += len(block.text[at:]) - len(block.text[at:].lstrip())
        elif block.language == "toml":
            tomllib.loads(block.text)
    except ValueError as error:
        error.add_note(f"in {place}")
        raise


def fits(wanted: str, told: str) -> bool:
    """Whether an output is what a page shows."""
    return doctest.OutputChecker().check_output(
        wanted.rstrip() + "\n", told.rstrip() + "\n", doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
