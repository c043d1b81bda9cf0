"""vecstore beside other engines on one data set, in one run: the raw material of rows 1, 2, 3, 6 and 7."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import peers
from bench.measure import CLOCKS, ROUNDS, Point, sweep
from bench.peers.kept import Keep
from bench.peers.ours import ENGINE, Ours
from bench.sets import CACHE, Dataset


@dataclass(frozen=True, slots=True)
class Built:
    """How long an index took to build, and what it keeps."""

    engine: str
    label: str
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that one run found about one set."""

    name: str
    metric: str
    rows: int
    dim: int
    queries: int
    points: list[Point] = field(default_factory=list)
    built: list[Built] = field(default_factory=list)

    def of(self, *engines: str) -> list[Point]:
        """The points of these engines."""
        return [point for point in self.points if point.engine in engines]

    @property
    def engines(self) -> list[str]:
        """Those that were measured, vecstore first."""
        return list(dict.fromkeys(built.engine for built in self.built))

    def json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def compare(
    dataset: Dataset,
    engines: Sequence[str] = tuple(peers.PEERS),
    *,
    rounds: int = ROUNDS,
    clock: str = "wall",
    small: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Build (or take from the cache) every index, then sweep all of them together."""
    keep = Keep(CACHE / f"{dataset.name}-{dataset.mark}", fresh, small, clock)
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        ours = Ours(dataset, folder, clock=clock)
        say(f"{ENGINE}: built in {ours.build_seconds:.1f} s, {ours.lists:,} lists")
        indexes = [ours, *peers.build(tuple(engines), dataset, keep, say)]
        points = sweep(indexes, dataset.queries, dataset.gt, rounds=rounds, clock=CLOCKS[clock], progress=say)
        built = [Built(index.engine, index.label, index.build_seconds, index.bytes) for index in indexes]
        ours.close()
    count, dim = dataset.base.shape
    return Comparison(dataset.name, dataset.metric, count, dim, len(dataset.queries), points, built)
