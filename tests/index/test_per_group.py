"""At most some hits of a group, held against an exact search that takes rows one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.core import CODED, EXACT, RangeStore, clustered, database, distances, generator, sample
from vecstore.api import Namespace
from vecstore.errors import InvalidArgument
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import Hits

DIM = 8


def oracle(
    far: npt.NDArray[np.float64], groups: Sequence[Any], most: int, k: int, allowed: Any = None
) -> list[int]:
    """Rows by distance, each unless its group is full."""
    counts: Counter[Any] = Counter()
    found: list[int] = []
    for row in np.argsort(far, kind="stable").tolist():
        if allowed is not None and not allowed[row]:
            continue
        if counts[groups[row]] < most and len(found) < k:
            counts[groups[row]] += 1
            found.append(row)
    return found


def keeps_to(hits: Hits, groups: Sequence[Any], most: int) -> bool:
    return max(Counter(groups[int(i)] for i in hits.ids).values()) <= most


@pytest.mark.parametrize("store", [MemoryStore, RangeStore])
@pytest.mark.parametrize("kind", ["int", "string", "float", "bool"])
def test_hits_are_those_of_an_exact_search(store: type[ObjectStore], kind: str) -> None:
    rng = generator(11)
    n = 1_500
    rows = clustered(rng, n, DIM, clusters=6, spread=0.3)
    # Groups of all sizes that lie together, so that one search for more rows is not enough.
    numbers = (
        np.argmin(distances(rows, rows[:12], "l2"), axis=0) if kind != "bool" else rng.integers(2, size=n)
    )
    make = {
        "int": int,
        "string": lambda i: f"doc {i}",
        "float": lambda i: [-0.0, 0.0, 1.5][i % 3],
        "bool": bool,
    }
    groups: list[Any] = [None if i % 11 == 5 else make[kind](g) for i, g in enumerate(numbers)]
    with database(store()) as db:
        ns = db.create_namespace("docs", DIM, "l2", **CODED)
        for some in np.array_split(np.arange(n), 2):
            ns.insert(
                rows[some],
                ids=some,
                attributes={"g": [groups[i] for i in some], "half": some % 2},
            )
        ns.insert(rows[:3], ids=range(n, n + 3))  # a part without the column
        ns.delete(range(n, n + 2))
        every, groups = np.concatenate([rows, rows[:3]]), [*groups, None, None, None]
        alive = np.ones(n + 3, dtype=bool)
        alive[n : n + 2] = False
        for q in rows[:8] + 0.05:
            far = distances(every, q, "l2")[0]
            for most, k in ((1, 10), (3, 10), (3, 200), (40, 100)):
                hits = ns.search(q, top_k=k, limit_per_group=("g", most), **EXACT)
                expected = oracle(far, groups, most, k, alive)
                assert hits.ids.tolist() == expected or ties(hits, far, expected)
                assert keeps_to(hits, groups, most)
            hits = ns.search(q, top_k=20, limit_per_group=("g", 2), filter=["half", "Eq", 1], **EXACT)
            allowed = alive & (np.arange(n + 3) % 2 == 1)
            allowed[n:] = False
            expected = oracle(far, groups, 2, 20, allowed)
            assert hits.ids.tolist() == expected or ties(hits, far, expected)


def ties(hits: Hits, far: npt.NDArray[np.float64], expected: list[int]) -> bool:
    """Whether hits are as near as those that were expected."""
    return len(hits) == len(expected) and bool(
        np.allclose(far[hits.ids.astype(np.int64)], far[expected], rtol=1e-5, atol=1e-6)
    )


def glosses() -> tuple[Any, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The sample, documents of 20 chunks each that lie anywhere, and topics whose rows lie together."""
    data = sample()
    rng = generator(3)
    documents = rng.integers(len(data.vectors) // 20, size=len(data.vectors))
    centres = data.vectors[rng.choice(len(data.vectors), size=300, replace=False)]
    topics = np.argmax(data.vectors @ centres.T, axis=1)
    return data, documents, topics


@pytest.fixture(scope="module")
def filled() -> Any:
    data, documents, topics = glosses()
    with database() as db:
        ns = db.create_namespace("docs", data.vectors.shape[1], "cosine")
        ns.insert(data.vectors, ids=data.ids, attributes={"document": documents, "topic": topics})
        yield ns, data, {"document": documents, "topic": topics}


@pytest.mark.parametrize("name", ["document", "topic"])
@pytest.mark.parametrize("most", [1, 3])
def test_recall_at_the_default_target_is_near_that_of_an_exact_search(
    filled: Any, name: str, most: int
) -> None:
    ns, data, attributes = filled
    groups = attributes[name].tolist()
    of = dict(zip(data.ids.tolist(), groups, strict=True))
    recalls = []
    for q in data.query_vectors[:100]:
        hits = ns.search(q, top_k=10, limit_per_group=(name, most))
        assert len(hits) == 10
        assert max(Counter(of[int(i)] for i in hits.ids).values()) <= most
        truth = data.ids[oracle(distances(data.vectors, q, "cosine")[0], groups, most, 10)]
        recalls.append(len(set(hits.ids.tolist()) & set(truth.tolist())) / 10)
    assert np.mean(recalls) >= 0.95


def test_the_search_goes_on_until_there_are_enough_or_no_rows_are_left(filled: Any) -> None:
    ns, data, attributes = filled
    counts = Counter(attributes["topic"].tolist())
    q = data.query_vectors[0]
    assert len(ns.search(q, top_k=300, limit_per_group=("topic", 1))) == len(counts)
    wanted = sum(min(count, 5) for count in counts.values())
    found = ns.search(q, top_k=5_000, limit_per_group=("topic", 5), debug=True)
    assert len(found) == wanted
    assert found.debug is not None
    assert found.debug["searches"] <= 3
    one = ns.search(q, top_k=10, limit_per_group=("document", 2), debug=True)
    assert one.debug is not None
    assert one.debug["searches"] == 1


def test_nothing_farther_than_the_greatest_distance_is_looked_for(filled: Any) -> None:
    ns, data, _ = filled
    q = data.query_vectors[1]
    every = ns.search(q, top_k=300, limit_per_group=("topic", 1), rerank_precision="fp32")
    limit = float(every.distances[4])
    near = ns.search(q, top_k=300, limit_per_group=("topic", 1), max_distance=limit)
    assert near.ids.tolist() == every.ids.tolist()[: len(near)]
    assert len(near) >= 5
    assert float(near.distances.max()) <= limit


def test_a_batch_and_a_stored_row_are_limited_alike() -> None:
    rows = clustered(generator(6), 200, DIM)
    groups = [i % 7 for i in range(200)]
    with database() as db:
        ns = db.create_namespace("docs", DIM, "l2", **CODED)
        ns.insert(rows, ids=range(200), attributes={"g": groups})
        batch = ns.search_batch(rows[:4], top_k=9, limit_per_group=["g", 2], **EXACT)
        for i in range(4):
            far = distances(rows, rows[i], "l2")[0]
            assert batch[i].ids.tolist() == oracle(far, groups, 2, 9)
            far[i] = np.inf
            hits = ns.search(id=i, top_k=9, limit_per_group=("g", 2), **EXACT)
            assert hits.ids.tolist() == oracle(far, groups, 2, 9)


def namespace_for_refusals(db: Any) -> Namespace:
    ns: Namespace = db.create_namespace(
        "docs", DIM, "l2", schema={"g": "int", "a": "[]int", "p": {"type": "int", "filterable": False}}
    )
    return ns


@pytest.mark.parametrize(
    "given", [("missing", 1), ("a", 1), ("p", 1), ("g", 0), ("g", 10_001), ("g", 1.5), ("g",), "g", (1, "g")]
)
def test_a_limit_that_is_none_is_refused(given: Any) -> None:
    with database() as db:
        ns = namespace_for_refusals(db)
        with pytest.raises(InvalidArgument) as refused:
            ns.search(np.zeros(DIM), limit_per_group=given)
        assert refused.value.details["field"] == "limit_per_group"
