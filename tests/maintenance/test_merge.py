"""A merge within a bound of memory: the same part whatever the bound, and no more memory than it says."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import RangeStore, clustered, engine, generator, nearest, recall
from vecstore.api import Database
from vecstore.errors import StorageRetryable
from vecstore.maintenance.merge import ARRAYS, Merged, Source, merge
from vecstore.part.builder import PartSpec
from vecstore.storage.cache import ReadTrace
from vecstore.storage.memory import MemoryStore

MIB = 1 << 20


def merged(ns: Any, **how: Any) -> Merged:
    """All parts of a namespace of `tests.core.engine`, merged but not committed."""
    manifest = ns.snapshots.strong().manifest
    view = ns.views.open(manifest, ReadTrace())
    sources = [Source(part, ns.tombstones.dead(part.reader.entry).copy()) for part in view.parts]

    def spec(vectors: Any) -> PartSpec:
        return ns.writes.spec(manifest, ns.writes.mean_for(manifest, vectors))

    return merge(view, sources, spec, **how)


def bytes_of(found: Merged) -> bytes:
    assert found.image is not None
    return b"".join(bytes(chunk) for chunk in found.image.chunks())


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
@pytest.mark.parametrize(
    ("metric", "stored", "strings"),
    [("cosine", "fp32", False), ("l2", "none", True), ("dot", "fp16", False), ("dot", "none", False)],
)
def test_the_part_does_not_depend_on_the_bound(
    tmp_path: Path, kind: Any, metric: Any, stored: Any, strings: bool
) -> None:
    rows = clustered(generator(3), 2_000, 48)
    ids: list[Any] = [f"row {i}" for i in range(2_000)] if strings else [7 * i for i in range(2_000)]
    db = engine(kind())
    ns = Database(db).create_namespace("ns", 48, metric, store_vectors=stored, small_part_threshold=20_000)
    for start, stop in ((0, 100), (100, 1_100), (1_100, 2_000)):  # the first is scanned exactly
        ns.insert(rows[start:stop], ids[start:stop])
    ns.delete(ids[::9])
    wide, narrow = (
        merged(db.namespace("ns"), memory=memory, folder=str(tmp_path)) for memory in (1 << 40, 1)
    )
    assert bytes_of(narrow) == bytes_of(wide)
    for one, other in zip(narrow.moved, wide.moved, strict=True):
        np.testing.assert_array_equal(one, other)
    assert sorted(np.concatenate(wide.moved).tolist()) == [-1] * len(ids[::9]) + list(
        range(2_000 - len(ids[::9]))
    )


@pytest.mark.parametrize(
    ("cores", "memory", "threads"), [(4, 1 << 40, 3), (1, 1 << 40, 1), (8, 128 << 20, 2)]
)
def test_a_merge_leaves_a_processor_to_others(
    cores: int, memory: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = engine()
    found: set[int] = set()
    ns = Database(db).create_namespace("ns", 32, "l2", small_part_threshold=0)
    for i in range(2):
        ns.insert(clustered(generator(i), 500, 32), range(500 * i, 500 * i + 500))

    def counted(most: int) -> ThreadPoolExecutor:
        found.add(most)
        return ThreadPoolExecutor(most)

    monkeypatch.setattr("vecstore.maintenance.merge.available_cores", lambda: cores)
    for module in ("arrange", "builder"):
        monkeypatch.setattr(f"vecstore.part.{module}.Workers", counted)
    assert merged(db.namespace("ns"), memory=memory).image is not None
    assert found == {threads}


def test_a_merge_beyond_the_bound_needs_the_folder_and_one_within_does_not(tmp_path: Path) -> None:
    db = engine()
    ns = Database(db).create_namespace("ns", 32, "l2", small_part_threshold=0)
    for i in range(2):
        ns.insert(clustered(generator(i), 500, 32), range(500 * i, 500 * i + 500))
    absent = str(tmp_path / "absent")
    with pytest.raises(StorageRetryable, match="absent"):
        merged(db.namespace("ns"), memory=ARRAYS * 1_000, folder=absent)
    assert merged(db.namespace("ns"), memory=ARRAYS * MIB, folder=absent).image is not None


@pytest.mark.parametrize(
    ("memory", "dim", "n", "stored"), [(16 * MIB, 192, 24_000, "fp32"), (64 * MIB, 1_536, 12_000, "fp16")]
)
def test_a_merge_takes_no_more_memory_than_it_may(
    tmp_path: Path, memory: int, dim: int, n: int, stored: Any
) -> None:
    """What NumPy and Python allocate, of a merge whose vectors alone are more than the bound."""
    rows = clustered(generator(1), n, dim)
    assert rows.nbytes > memory
    db = engine(RangeStore())
    ns = Database(db).create_namespace(
        "ns", dim, "cosine", small_part_threshold=1 << 30, store_vectors=stored
    )
    for start in range(0, len(rows), 4_000):
        ns.insert(rows[start : start + 4_000], range(start, start + 4_000))
    ns.update(small_part_threshold=0)
    seen: list[list[Path]] = []
    merged_in = db.namespace("ns")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = merged(
            merged_in,
            memory=memory,
            folder=str(tmp_path),
            progress=lambda _: seen.append(list(tmp_path.iterdir())),
        )
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert found.image is not None
    assert found.image.n == len(rows)
    assert peak <= memory
    assert len(seen) > 10
    assert not any(seen), "a file that has a name is left behind by a kill"


@pytest.mark.parametrize("metric", ["cosine", "l2", "dot"])
def test_rows_put_in_order_are_found_as_well_as_others(metric: Any) -> None:
    """Recall of a compaction beside that of one insert of the same rows."""
    rows, queries = clustered(generator(8), 4_000, 32), clustered(generator(8), 100, 32)
    truth = nearest(rows, queries, metric, 10)
    found = []
    for name, step in (("one", 4_000), ("four", 1_000)):
        ns = Database(engine()).create_namespace(name, 32, metric, small_part_threshold=0)
        for start in range(0, 4_000, step):
            ns.insert(rows[start : start + step], range(start, start + step))
        ns.compact()
        assert ns.stats().parts == 1
        found.append(recall(ns.search_batch(queries, target_recall=0.9).ids, truth))
    assert min(found) >= 0.88, found
