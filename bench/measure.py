"""What any engine is measured by: recall, queries a second, the best of them, and a slope.

An engine is one or more *indexes* (of other list counts, degrees, bits); an index has a grid of
*settings*. ``sweep`` gives one `Point` a setting, of all indexes in one run: settings of all engines
take turns, spread evenly, so that a disturbance of the machine meets all of them. The first round
measures every setting and its recall, a slow one by fewer queries. Later rounds go again through
those that can still be the best: of each engine, what is within a third of its best figure at one
of the marks, and its defaults (the empty setting), which row 3 judges. Each point keeps the best of its
rounds.

"At the same recall" is `best_at`: the best figure of an engine's points whose recall reaches the mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vecstore.types import F32

K = 10
MARKS = (0.90, 0.95, 0.99)
ROUNDS = 3
CONTENDER = 0.67  # of the engine's best at a mark; below that a setting is not measured again
WARM = 20  # queries before the clock starts
BUDGET = 1.0  # seconds that the single queries of one turn may take; then it stops at LEAST of them
LEAST = 200

Setting = Mapping[str, Any]
Rows = npt.NDArray[Any]
Clock = Callable[[], float]
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass(frozen=True, slots=True)
class Searcher:
    """An index under one setting.

    Attributes
    ----------
    single
        One query (in the form `Index.prepare` gave it) to an answer in the engine's own form.
    batch
        f32[M, D] to such an answer; None where an engine has no call for many queries.
    rows
        An answer of ``single`` to row numbers, not timed.
    batch_rows
        An answer of ``batch`` to row numbers [M, k], not timed.
    """

    single: Callable[[Any], Any]
    batch: Callable[[Any], Any] | None = None
    rows: Callable[[Any], Sequence[int] | Rows] = np.ravel
    batch_rows: Callable[[Any], Rows] = np.asarray


class Index(Protocol):
    """A built index of an engine."""

    engine: str
    label: str
    build_seconds: float
    bytes: int  # what it keeps in memory to answer, as well as the engine tells

    def settings(self) -> Sequence[Setting]:
        """The grid to sweep."""

    def use(self, setting: Setting) -> Searcher:
        """Search with this setting from now on."""

    def prepare(self, queries: F32) -> Sequence[Any]:
        """Each query in the form that the engine's own call likes best; not timed."""


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting reaches."""

    engine: str
    label: str
    setting: Setting
    recall: float
    single_qps: float
    batch_qps: float = 0.0

    @property
    def name(self) -> str:
        """The index and the setting, for people."""
        return f"{self.label} " + " ".join(f"{key}={_plain(value)}" for key, value in self.setting.items())


def sweep(
    indexes: Sequence[Index],
    queries: F32,
    gt: Rows,
    *,
    k: int = K,
    rounds: int = ROUNDS,
    batch: bool = True,
    clock: Clock = time.perf_counter,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Measure every setting of every index, interleaved."""
    turns = _turns(indexes)
    prepared = [index.prepare(queries) for index in indexes]
    points: list[Point | None] = [None] * len(turns)
    for round_ in range(rounds):
        known = [point for point in points if point is not None]
        chosen = range(len(turns)) if not known else contenders(known)
        progress(f"round {round_ + 1}: {len(chosen)} settings")
        for i in chosen:
            which, setting = turns[i]
            point = measure(
                indexes[which], setting, prepared[which], queries, gt, k, batch=batch, clock=clock
            )
            before = points[i]
            points[i] = point if before is None else _better(before, point)
    return [point for point in points if point is not None]


def measure(
    index: Index,
    setting: Setting,
    prepared: Sequence[Any],
    queries: F32,
    gt: Rows,
    k: int = K,
    *,
    batch: bool = True,
    clock: Clock = time.perf_counter,
) -> Point:
    """Ask queries by themselves, as many as the budget allows, then as many as one batch."""
    searcher = index.use(setting)
    single = searcher.single
    start = clock()
    for query in prepared[:WARM]:
        single(query)
    allowed = int(BUDGET * WARM / max(clock() - start, 1e-9))
    count = min(len(prepared), max(LEAST, allowed))
    chosen = prepared[:count]
    start = clock()
    answers = [single(query) for query in chosen]
    seconds = clock() - start
    recall = recall_at([searcher.rows(answer) for answer in answers], gt[:count], k)
    batch_qps = 0.0
    if batch and searcher.batch is not None:
        start = clock()
        searcher.batch(queries[:count])
        batch_qps = count / (clock() - start)
    return Point(index.engine, index.label, setting, recall, count / seconds, batch_qps)


def contenders(points: Sequence[Point], marks: Sequence[float] = MARKS) -> list[int]:
    """Places of defaults, and of points that may be an engine's best at some mark, single or as a batch."""
    chosen = {i for i, point in enumerate(points) if not point.setting}
    for engine in {point.engine for point in points}:
        own = [i for i, point in enumerate(points) if point.engine == engine]
        for mark in marks:
            for speed in (_single, _batch):
                enough = [i for i in own if points[i].recall >= mark]
                top = max((speed(points[i]) for i in enough), default=0.0)
                chosen.update(i for i in enough if speed(points[i]) >= CONTENDER * top > 0.0)
    return sorted(chosen)


def best_at(points: Sequence[Point], recall: float, *, batch: bool = False) -> Point | None:
    """The fastest point of at least this recall, or None if no point reaches it."""
    speed = _batch if batch else _single
    return max((point for point in points if point.recall >= recall), key=speed, default=None)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The points that no other point beats in both recall and queries a second, by recall."""
    out: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.recall, -p.single_qps)):
        if not out or point.single_qps > out[-1].single_qps:
            out.append(point)
    return out[::-1]


def recall_at(found: Sequence[Sequence[int] | Rows], gt: Rows, k: int) -> float:
    """The mean share of the exact k nearest rows that are among the first k found."""
    hits = sum(
        len(set(map(int, near[:k])) & set(exact[:k].tolist())) for near, exact in zip(found, gt, strict=True)
    )
    return hits / (k * len(gt))


def slope(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent b of cost = a · size^b, by least squares on logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def _turns(indexes: Sequence[Index]) -> list[tuple[int, Setting]]:
    grids = [list(index.settings()) for index in indexes]
    placed = [
        ((place + 0.5) / len(grid), which, place)
        for which, grid in enumerate(grids)
        for place in range(len(grid))
    ]
    return [(which, grids[which][place]) for _, which, place in sorted(placed)]


def _better(a: Point, b: Point) -> Point:
    return replace(a, single_qps=max(a.single_qps, b.single_qps), batch_qps=max(a.batch_qps, b.batch_qps))


def _single(point: Point) -> float:
    return point.single_qps


def _batch(point: Point) -> float:
    return point.batch_qps


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
