"""Point 2 of the object storage issue, for a quarter of a minute; `python -m tests.chaos` takes five."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.run import Plan, run


def test_killed_processes_and_a_killed_store_lose_nothing(tmp_path: Path) -> None:
    report = run(Plan(seconds=15.0, seed=1, kill_every=1.5, restarts=1), tmp_path)
    print(report)
    assert report.sound, report
    assert report.restarts == 1
    assert report.kills.total() >= 3
    assert report.verdict.steps["puts acknowledged"] > 0, report
    assert report.verdict.answers["all"] > 1, report
