"""Points 1 and 8 of the object storage issue: seeded schedules, and nothing that is promised breaks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.world import Setup, simulate

STEPS = 2_500


@pytest.mark.parametrize("seed", range(1, 9))
def test_no_promise_is_broken_in_any_order_of_events(seed: int) -> None:
    report = simulate(Setup.of(seed, STEPS))
    assert report.steps >= STEPS


def test_a_run_meets_what_it_is_there_for() -> None:
    happened: Counter[str] = Counter()
    for seed in range(1, 4):  # what is rare need not come in each
        report = simulate(Setup(seed=seed, steps=2_000))
        happened += Counter(report.counts) + Counter(report.faults)
    for what in (
        "crash",
        "lost answer",
        "late write",
        "pause",
        "late list",
        "objects collected",
        "compaction: tiny parts",
        "error: precondition_failed",
        "error: storage_unavailable",
    ):
        assert happened[what] > 0, f"no {what}: {happened}"


def command(*arguments: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_a_seed_repeats_in_another_process() -> None:
    here = simulate(Setup.of(3, 300))
    assert simulate(Setup.of(3, 300)).digest == here.digest
    there = command("--seed", "3", "--steps", "300", hash_seed="7")
    assert f"seed 3: {here.steps} steps" in there.stdout
    assert here.digest in there.stdout
    assert simulate(Setup.of(4, 300)).digest != here.digest


def test_a_seed_that_fails_is_printed_and_fails_again() -> None:
    first = command("--rule-off", "R17", "--steps", "600", "--seeds", "9")
    assert first.returncode == 1
    last = first.stdout.splitlines()[-1]
    assert last.startswith("again: python -m tests.simulation --seed ")
    again = command(*last.split()[4:], hash_seed="1")
    assert again.returncode == 1
    assert again.stdout.splitlines()[-3:] == first.stdout.splitlines()[-3:]
