"""What a pattern may cost: how large its program may be, and that somebody waits for it."""

from __future__ import annotations

import pytest

from vecstore import deadline
from vecstore.errors import DeadlineExceeded
from vecstore.rows.filters.patterns import PatternKind, PatternTooLarge, compile_pattern

ORDINARY: list[tuple[PatternKind, str, str]] = [
    ("regex", r"^https?://.*\.(jpg|png)$", "https://example.org/a.png"),
    ("regex", r"\b[A-Z]{2}\d{4}\b", "no. AB1234, again"),
    ("regex", "(?i)foo|bar|baz", "a BAR"),
    ("regex", r"[a-z]{1,20}@[a-z]{1,20}\.com", "me@example.com"),
    ("regex", r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", "12345678-9abc-def0-1234-56789abcdef0"),
    ("regex", r"\b\w{1,64}@\w{1,255}\.\w{2,24}\b", "me@example.com"),
    ("regex", r"(foo|bar)(\W+\w+){0,10}\W+(baz|qux)", "foo, and so on, qux"),
    ("regex", r"[\pL\pN_-]+@[\pL\pN-]+\.\pL{2,}", "ich@büro.köln"),
    ("regex", r"^\p{Lu}\p{L}{1,4}$", "Łódź"),
    ("regex", "foo.{0,200}bar", "foo" + "-" * 200 + "bar"),
    ("glob", "x" * 1_023 + "*", "x" * 2_000),
    ("iglob", "é" * 512, "É" * 512),
    ("glob", "?" * 500, "ö" * 500),
]
TOO_LARGE: list[tuple[PatternKind, str]] = [
    ("regex", "((.a|.b){1,500}){2}z"),
    ("regex", ".{1,900}z"),
    ("regex", r"\pL{100}"),
    ("glob", "?" * 1_000),
]


@pytest.mark.parametrize(("kind", "pattern", "text"), ORDINARY)
def test_ordinary_patterns_are_small_enough(kind: PatternKind, pattern: str, text: str) -> None:
    found = compile_pattern(kind, pattern)
    assert found.matches(text.encode())
    assert not found.matches(b"-")


@pytest.mark.parametrize(("kind", "pattern"), TOO_LARGE)
def test_a_pattern_of_too_many_instructions_is_refused(kind: PatternKind, pattern: str) -> None:
    with pytest.raises(PatternTooLarge):
        compile_pattern(kind, pattern)


def test_a_pattern_is_held_against_no_text_that_nobody_waits_for() -> None:
    found = compile_pattern("regex", "b")
    with deadline.within(0.0), pytest.raises(DeadlineExceeded):
        found.matches(b"abc")
    assert found.matches(b"abc")
