"""What a process of `test_conditions` does. Imported by the processes, so it imports no test library."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

import vecstore
from tests.system.writer import Start
from vecstore.api import Namespace

DIM = 4


@dataclass(frozen=True, slots=True)
class Taken:
    """Values of the counter that this process set, seats that it got, and writes whose condition failed."""

    steps: list[int]
    seats: list[int]
    refused: int


def contend(number: int, url: str, env: dict[str, str], steps: int, seats: int) -> Taken:
    """Add to a counter by compare-and-set, add to one beside it, and take seats that others want too."""
    os.environ.update(env)
    with vecstore.connect(url, maintenance="off") as db:
        ns = db.namespace("docs")
        Start.barrier.wait()
        taken, refused = [], 0
        while len(taken) < steps:
            value, lost = _step(ns, "count")
            taken.append(value)
            _, also = _step(ns, "pairs")
            refused += lost + also
        mine = []
        for seat in range(seats):
            wanted = [100 + (seat + number) % seats]
            done = ns.insert(
                np.full((1, DIM), number),
                wanted,
                attributes={"owner": [number]},
                mode="insert_if_absent",
                return_ids=True,
            )
            mine += [int(i) for i in done.affected_ids or []]
            refused += done.skipped
        return Taken(taken, mine, refused)


def _step(ns: Namespace, name: str) -> tuple[int, int]:
    """The value that this process was the one to set, and how often others were sooner."""
    refused = 0
    while True:
        found = ns.get(0, include_vector=False).attributes
        assert found is not None
        now = int(found[name])
        done = ns.patch([0], {name: [now + 1]}, condition=[name, "Eq", now])
        if done.patched:
            return now + 1, refused
        refused += 1
