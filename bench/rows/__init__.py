"""The figures that the engine is held to, one command each: ``python -m bench.rows 1 2``.

A row is a function of a `Run` that yields verdicts: a figure, the floor that it must reach, PASS or
FAIL. `ROWS` has them by the number that they have in ``docs/benchmarks.md``. This package shares what
rows have in common: the data sets of a run, and what was built on them already.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import grow, peers, sets
from bench.compare import Comparison, compare
from bench.measure import CLOCKS, Clock
from bench.peers.ours import Ours

SETS: Mapping[str, Callable[[], sets.Dataset]] = {
    "glosses": sets.glosses,
    "fashion": sets.fashion,
    "grown": grow.grown,
    "sample": sets.sample,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure beside its floor.

    Attributes
    ----------
    row
        Number of the row.
    set
        Name of the data set.
    what
        What was measured, and how.
    value
        The figure; None where it could not be had.
    floor
        What it must be, for people.
    passed
        None where nothing is judged.
    detail
        Settings, recalls, absolute figures.
    """

    row: int
    set: str
    what: str
    value: float | None
    floor: str = ""
    passed: bool | None = None
    detail: str = ""

    def __str__(self) -> str:
        value = "–" if self.value is None else f"{self.value:.3f}"
        verdict = {None: "", True: "PASS", False: "FAIL"}[self.passed]
        figure = f"{value:>9} {self.floor:>10} {verdict:4}"
        return f"row {self.row:2} {self.set:12} {figure} {self.what}. {self.detail}"


@dataclass(slots=True)
class Run:
    """What one command line asks for, and what has been built for it so far."""

    names: tuple[str, ...]
    engines: tuple[str, ...]
    rounds: int
    clock: str
    into: Path
    small: bool = False
    fresh: bool = False
    say: Callable[[str], None] = lambda _: None
    _sets: dict[str, sets.Dataset] = field(default_factory=dict)
    _comparisons: dict[str, Comparison] = field(default_factory=dict)
    _ours: dict[str, Ours] = field(default_factory=dict)
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def dataset(self, name: str) -> sets.Dataset:
        """A data set; the shipped sample stands in for one that this machine lacks."""
        if name not in self._sets:
            try:
                self._sets[name] = SETS[name]()
            except sets.DataMissing as missing:
                self.say(f"{missing} The shipped sample stands in.")
                self._sets[name] = sets.sample()
        return self._sets[name]

    def datasets(self, *, large: bool = False) -> Iterator[sets.Dataset]:
        """Those of this run, each once; a million rows only where a row wants them."""
        seen = set()
        for name in self.names:
            if name == "grown" and not large:
                continue
            dataset = self.dataset(name)
            if dataset.name not in seen:
                seen.add(dataset.name)
                yield dataset

    def comparison(self, dataset: sets.Dataset) -> Comparison:
        """vecstore beside its peers on a set, measured once a run."""
        if dataset.name not in self._comparisons:
            few = len(dataset.base) > 500_000
            engines = tuple(e for e in self.engines if not few or e in peers.LARGE)
            self._comparisons[dataset.name] = compare(
                dataset,
                engines,
                rounds=self.rounds,
                clock=self.clock,
                small=self.small,
                fresh=self.fresh,
                say=self.say,
            )
        return self._comparisons[dataset.name]

    def ours(self, dataset: sets.Dataset, *, parts: int = 1, compact: bool = True) -> Ours:
        """A namespace of a set, built once a run."""
        key = f"{dataset.name} {parts} {compact}"
        if key not in self._ours:
            folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="vecstore-bench-"))
            self._ours[key] = Ours(dataset, folder, parts=parts, compact=compact, clock=self.clock)
            self._open.callback(self._ours[key].close)
        return self._ours[key]

    @property
    def timer(self) -> Clock:
        """The clock of this run."""
        return CLOCKS[self.clock]

    def comparisons(self) -> Iterator[Comparison]:
        """What was compared in this run."""
        yield from self._comparisons.values()

    def close(self) -> None:
        """Remove what was built."""
        self._open.close()


Row = Callable[[Run], Iterator[Verdict]]


def rows() -> Mapping[int, Row]:
    """All rows by number."""
    from bench.rows import beside, calls, kernel, scaling, targets

    return {
        1: beside.over_peers,
        2: beside.over_graph,
        3: beside.defaults,
        4: calls.latency,
        5: calls.batches,
        6: beside.builds,
        7: beside.memory,
        8: scaling.growth,
        9: scaling.parts,
        10: targets.targets,
        11: kernel.scan,
        12: calls.overhead,
    }
