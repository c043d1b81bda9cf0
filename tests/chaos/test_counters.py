"""The search for a store that lets two win runs, and what it would find is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.chaos.counters import passed_over, run


def switch(value: int, old: str, new: str, key: str = "0") -> dict[str, Any]:
    return {"key": key, "value": value, "old": old, "new": new, "began": 1, "ended": 2}


def test_values_that_build_upon_each_other_are_sound() -> None:
    # One whose answer nobody waited for lies between the second and the third.
    assert (
        passed_over([switch(1, "a", "b"), switch(2, "b", "c"), switch(4, "d", "e"), switch(1, "x", "y", "1")])
        == []
    )


def test_a_value_that_was_acknowledged_and_not_built_upon_is_found() -> None:
    (problem,) = passed_over([switch(1, "a", "b"), switch(2, "other", "c")])
    assert "value 1 was acknowledged as b, and the next one replaced other" in problem


def test_counters_are_raised_on_a_real_server(tmp_path: Path) -> None:
    acknowledged, problems = run(restarts=0, counters=1, clients=2, folder=tmp_path, at_once=False)
    assert acknowledged > 0
    assert problems == []
