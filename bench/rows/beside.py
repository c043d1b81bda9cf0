"""Rows 1, 2, 3, 6 and 7: vecstore beside other engines, all from one comparison a set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.compare import Comparison
from bench.measure import Point, best_at
from bench.peers.ours import ENGINE, stored_bytes
from bench.rows import Run, Verdict

NAMED = ("faiss IVF-PQ", "faiss IVF-RaBitQ", "hnswlib", "usearch", "rabitqlib IVF", "qdrant-edge")
GRAPH = ("rabitqlib SymphonyQG",)
PEER_FLOORS = {0.95: 1.5, 0.99: 1.4}
GRAPH_FLOORS = {0.95: 0.7, 0.99: 0.5}
DEFAULT_RECALL, DEFAULT_FLOOR = 0.95, 0.9
BUILD_FAISS, BUILD_HNSW = 1.5, 0.25
LEAST_SETTINGS = 15


def over_peers(run: Run) -> Iterator[Verdict]:
    """Row 1: queries a second over the best of the named peers."""
    yield from _over(run, 1, NAMED, PEER_FLOORS)


def over_graph(run: Run) -> Iterator[Verdict]:
    """Row 2: queries a second over SymphonyQG."""
    yield from _over(run, 2, GRAPH, GRAPH_FLOORS)


def defaults(run: Run) -> Iterator[Verdict]:
    """Row 3: the default settings over vecstore's own best at the recall that they reach."""
    for dataset in run.datasets():
        own = run.comparison(dataset).of(ENGINE)
        point = next(point for point in own if not point.setting)
        best = best_at(own, point.recall)
        assert best is not None
        ratio = point.single_qps / best.single_qps
        yield Verdict(
            3,
            dataset.name,
            "queries/s at the defaults over the best at that recall",
            ratio,
            f"≥ {DEFAULT_FLOOR}, recall ≥ {DEFAULT_RECALL}",
            ratio >= DEFAULT_FLOOR and point.recall >= DEFAULT_RECALL,
            f"{_point(point)}; best {_point(best)}",
        )


def builds(run: Run) -> Iterator[Verdict]:
    """Row 6: seconds of a build, durable part included, over FAISS's at its best list count and hnswlib's."""
    for dataset in run.datasets(large=True):
        found = run.comparison(dataset)
        seconds = {(built.engine, built.label): built.seconds for built in found.built}
        mine = next(built.seconds for built in found.built if built.engine == ENGINE)
        for engine, floor in (("faiss IVF-PQ", BUILD_FAISS), ("hnswlib", BUILD_HNSW)):
            best = best_at(found.of(engine), 0.95)
            if best is None:
                continue
            theirs = seconds[engine, best.label]
            yield Verdict(
                6,
                dataset.name,
                f"build over {engine}'s at its best list count or degree",
                mine / theirs,
                f"≤ {floor}",
                mine / theirs <= floor,
                f"{mine:.1f} s; {best.label} {theirs:.1f} s",
            )


def memory(run: Run) -> Iterator[Verdict]:
    """Row 7: bytes a vector, ours by kind, each peer's whole."""
    for dataset in run.datasets(large=True):
        found = run.comparison(dataset)
        for kind, size in stored_bytes(run.ours(dataset)).items():
            yield Verdict(7, dataset.name, f"vecstore, {kind}, bytes a vector", size / found.rows)
        for engine in found.engines[1:]:
            best = best_at(found.of(engine), 0.95)
            if best is not None:
                (size,) = (b.bytes for b in found.built if (b.engine, b.label) == (engine, best.label))
                yield Verdict(
                    7, dataset.name, f"{engine}, bytes a vector", size / found.rows, "", None, best.label
                )


def _over(run: Run, row: int, engines: Sequence[str], floors: dict[float, float]) -> Iterator[Verdict]:
    for dataset in run.datasets(large=True):
        found = run.comparison(dataset)
        for mark, floor in floors.items():
            yield _ratio(found, row, engines, mark, floor)


def _ratio(found: Comparison, row: int, engines: Sequence[str], mark: float, floor: float) -> Verdict:
    ours = best_at(found.of(ENGINE), mark)
    theirs = best_at(found.of(*engines), mark)
    what = f"queries/s at recall@10 ≥ {mark} over {'the best peer' if len(engines) > 1 else engines[0]}"
    if theirs is None:
        return Verdict(row, found.name, what, None, f"≥ {floor}", None, "no peer reaches it")
    few = [e for e in engines if 0 < len(found.of(e)) < LEAST_SETTINGS]
    note = f"; fewer than {LEAST_SETTINGS} settings: {', '.join(few)}" if few else ""
    if ours is None:
        return Verdict(row, found.name, what, 0.0, f"≥ {floor}", False, "vecstore does not reach it" + note)
    ratio = ours.single_qps / theirs.single_qps
    detail = f"{_point(ours)}; {theirs.engine} {_point(theirs)}{note}"
    return Verdict(row, found.name, what, ratio, f"≥ {floor}", ratio >= floor, detail)


def _point(point: Point) -> str:
    return f"{point.single_qps:,.0f}/s at {point.recall:.4f} ({point.name.strip()})"
