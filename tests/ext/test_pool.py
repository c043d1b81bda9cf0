"""The pool of candidates and the orders of lists, held against sorted arrays in C, without Python."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.ext.compiled import NATIVE, ROOT, compile_check, needs_compiler, run_check

CHECK = Path(__file__).with_name("check_pool.c")

SPOILED = [
    ("pool", "pool.h", "pool->complete = pool->estimates[pool->size - 1];", "pool->complete = INFINITY;"),
    (
        "pool",
        "pool.h",
        "n += pool->estimates[i] <= pool->threshold;",
        "n += pool->estimates[i] < pool->threshold;",
    ),
    ("lists", "rank.h", "sorted[i].key = sorted[i].value;", "sorted[i].key = ~sorted[i].value;"),
    ("pool", "simd/sort/serial.h", "vs_insertion_sort(spare, n);", ""),
]


@needs_compiler
def test_a_pool_keeps_the_nearest_and_lists_are_in_order(tmp_path: Path) -> None:
    assert run_check(compile_check(CHECK, str(NATIVE), tmp_path / "check")) == (0, [])


@needs_compiler
@pytest.mark.parametrize(("what", "header", "right", "wrong"), SPOILED)
def test_the_check_sees_what_is_wrong(what: str, header: str, right: str, wrong: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ext", tmp_path / "ext", ignore=shutil.ignore_patterns("*.c", "*.pyx"))
    spoiled = tmp_path / "ext" / header
    text = spoiled.read_text()
    assert text.count(right) == 1
    spoiled.write_text(text.replace(right, wrong))
    code, lines = run_check(compile_check(CHECK, str(NATIVE), tmp_path / "check", headers=tmp_path / "ext"))
    assert code == 1
    assert lines[-1].startswith(f"{what}, seed ")
