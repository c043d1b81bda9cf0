"""What the fuzzer found worth keeping is answered, or refused by an error of ours, on any build."""

from __future__ import annotations

from random import Random

import pytest

from tests.fuzz.__main__ import SHARES, kept
from tests.fuzz.dice import Dice
from tests.fuzz.exercise import WAYS, ask
from tests.fuzz.one import GUIDES
from tests.fuzz.targets import TARGETS
from tests.fuzz.worlds import world

RANDOM = 12  # inputs a target, beside those that were kept


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_input_that_was_kept_is_survived(target: str) -> None:
    inputs = kept(target)
    assert inputs
    for _, data in inputs:
        TARGETS[target](data)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_inputs_of_random_bytes_are_survived(target: str) -> None:
    rng = Random(f"random {target}")
    for _ in range(RANDOM):
        data = rng.randbytes(rng.randrange(8, 80))
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target}: {data.hex()}") from error


def test_all_that_is_asked_of_forged_stores_can_be_asked_of_sound_ones() -> None:
    """A question that is refused for what it is itself would never reach what was forged."""
    which, failed = world("coded"), {}
    for number, way in enumerate(WAYS):
        for kind in (0, 1):
            told = ask(which, which.objects, Dice(bytes([kind, 0, number, *range(5, 40)])))
            failed.update({f"{way.__name__} of {kind}": error for error in told})
    assert failed == {}


def test_every_target_has_its_share_of_the_time() -> None:
    assert set(SHARES) == set(GUIDES) == set(TARGETS)
