"""Parts, manifests and tombstones that somebody forged, checksums included."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.dice import Dice
from tests.fuzz.exercise import ask
from tests.fuzz.hostile import HostileStore
from tests.fuzz.worlds import KINDS, world

Edit = Callable[[HostileStore, Dice], None]

MOST_EDITS = 5


def part(data: bytes) -> None:
    """A part, and what the manifest says of it."""
    _run(
        data, (HostileStore.edit_part, HostileStore.edit_part, HostileStore.edit_part, HostileStore.edit_line)
    )


def manifest(data: bytes) -> None:
    _run(data, (HostileStore.edit_manifest,))


def tombstone(data: bytes) -> None:
    _run(data, (HostileStore.edit_tombstone, HostileStore.edit_tombstone, HostileStore.edit_line))


def _run(data: bytes, edits: tuple[Edit, ...]) -> None:
    """The questions come first, so that what is changed can grow behind them."""
    asked, dice = Dice(data[:16]), Dice(data[16:])
    which = world(dice.of(list(KINDS)))
    hostile = HostileStore(which)
    for _ in range(MOST_EDITS):
        if not dice:
            break
        dice.of(edits)(hostile, dice)
    ask(which, hostile.put_together(), asked)
