"""Exact search against NumPy: every metric, dead rows, several parts, every way to keep vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import CODED, RangeStore, clustered, distances, engine, generator
from vecstore.engine.database import EmbeddedDatabase
from vecstore.index import exact
from vecstore.index.exact import Neighbours, exact_search, live_rows
from vecstore.index.view import View
from vecstore.storage.cache import ReadTrace

METRICS = ["cosine", "l2", "dot"]
DIM = 24
Rows = npt.NDArray[np.float32]


def filled(
    metric: Any,
    batches: list[Rows],
    *,
    strings: bool = False,
    db: EmbeddedDatabase | None = None,
    **more: Any,
) -> EmbeddedDatabase:
    """A namespace of one part a batch; the ids count on."""
    db = engine() if db is None else db
    db.create("ns", batches[0].shape[1], metric, more)
    first = 0
    for rows in batches:
        ids: list[Any] = list(range(first, first + len(rows)))
        if strings:
            ids = [f"row-{i}" for i in ids]
        db.insert("ns", rows, ids, mode="insert", expected=None, idempotency_key=None)
        first += len(rows)
    return db


def opened(db: EmbeddedDatabase) -> View:
    found = db.namespace("ns")
    return found.views.open(found.snapshots.strong().manifest, ReadTrace())


def ids_of(view: View, found: Neighbours) -> list[list[Any]]:
    """Ids of each query's neighbours, by the part's own ids."""
    out = []
    for parts, rows, count in zip(found.parts, found.rows, found.counts, strict=True):
        some = zip(parts[:count].tolist(), rows[:count].tolist(), strict=True)
        out.append([view.parts[p].reader.ids_of(np.array([r]), ReadTrace())[0] for p, r in some])
    return out


def check(
    db: EmbeddedDatabase, model: dict[Any, Rows], queries: Rows, metric: str, k: int, *, rtol: float = 1e-9
) -> None:
    """The distances are those of NumPy, and so are the ids, but for ties."""
    view = opened(db)
    found = exact_search(view, queries, k, ReadTrace())
    ids = list(model)
    rows = np.stack([model[i] for i in ids])
    truth = distances(rows, queries, metric)
    width = min(k, len(ids))
    assert found.counts.tolist() == [width] * len(queries)
    scale = np.abs(truth).max() if metric == "dot" else 1.0
    best = np.sort(truth, axis=1)[:, :width]
    np.testing.assert_allclose(found.distances[:, :width], best, rtol=rtol, atol=1e-12 + rtol * scale)
    assert np.isinf(found.distances[:, width:]).all()
    of = {identity: column for column, identity in enumerate(ids)}
    for q, some in enumerate(ids_of(view, found)):
        assert len(set(some)) == width
        mine = [truth[q, of[identity if isinstance(identity, str) else int(identity)]] for identity in some]
        np.testing.assert_allclose(mine, best[q], rtol=rtol, atol=1e-12 + rtol * scale)


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("strings", [True, False])
@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_those_of_numpy_over_parts_and_deletes(
    metric: str, strings: bool, coded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "BLOCK_BYTES", 64 * 4 * DIM)  # many blocks and groups of queries
    rows, queries = clustered(generator(1), 900, DIM), clustered(generator(2), 150, DIM)
    db = filled(metric, np.split(rows, 3), strings=strings, **(CODED if coded else {}))
    gone = list(range(5, 900, 3))
    db.delete_rows("ns", [f"row-{i}" if strings else i for i in gone], expected=None, idempotency_key=None)
    model = {(f"row-{i}" if strings else i): rows[i] for i in range(900) if i not in gone}
    check(db, model, queries, metric, 20)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kept", ["fp32", "fp16", "none"])
def test_rows_are_taken_as_they_are_stored(kept: Any, metric: str, coded: bool, ranges: bool) -> None:
    rows, queries = clustered(generator(3), 400, DIM), clustered(generator(4), 10, DIM)
    db = engine(RangeStore() if ranges else None)
    filled(metric, np.split(rows, 2), store_vectors=kept, db=db, **(CODED if coded else {}))
    model: dict[Any, Rows]
    if kept == "fp32":
        model = dict(enumerate(rows))
    elif kept == "fp16":
        model = dict(enumerate(rows.astype(np.float16).astype(np.float32)))
    else:
        view = opened(db)
        model = {}
        for part in view.parts:
            every = np.arange(part.reader.entry.n)
            near = part.reader.approximate_vectors(every, view.rotation, view.means[part.group], ReadTrace())
            ids = np.concatenate(list(part.reader.scan_ids(ReadTrace()))).tolist()
            model |= dict(zip(ids, near, strict=True))
        given = rows if metric != "cosine" else rows / np.linalg.norm(rows, axis=1)[:, None]
        np.testing.assert_allclose(np.stack([model[i] for i in range(400)]), given, atol=0.1)
    check(db, model, queries, metric, 10, rtol=1e-6 if kept == "none" else 1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_far_from_the_origin_are_told_apart(metric: str) -> None:
    rows = clustered(generator(5), 2_000, DIM) + np.float32(1_000.0)
    queries = clustered(generator(6), 20, DIM) + np.float32(1_000.0)
    check(filled(metric, [rows]), dict(enumerate(rows)), queries, metric, 10, rtol=1e-7)


def test_a_query_may_skip_a_row_and_no_other() -> None:
    rows = clustered(generator(7), 300, DIM)
    db = filled("l2", np.split(rows, 3), **CODED)
    view = opened(db)
    plain = exact_search(view, rows[:100], 3, ReadTrace())
    skip = (plain.parts[:, 0].copy(), plain.rows[:, 0].copy())
    skip[0][50:] = skip[1][50:] = -1
    found = exact_search(view, rows[:100], 2, ReadTrace(), skip=skip)
    np.testing.assert_array_equal(found.rows[:50], plain.rows[:50, 1:])
    np.testing.assert_array_equal(found.parts[:50], plain.parts[:50, 1:])
    np.testing.assert_array_equal(found.rows[50:], plain.rows[50:, :2])


def test_the_pace_is_asked_between_blocks_and_can_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BLOCK_BYTES", 100 * 4 * DIM)
    view = opened(filled("l2", [clustered(generator(8), 1_000, DIM)]))
    asked: list[int] = []

    def pace() -> None:
        asked.append(1)
        if len(asked) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exact_search(view, np.ones((1, DIM), dtype=np.float32), 1, ReadTrace(), pace=pace)
    assert len(asked) == 3


def test_live_rows_come_in_blocks_and_in_order() -> None:
    db = filled("l2", [clustered(generator(9), 100, DIM)])
    db.delete_rows("ns", list(range(40, 60)), expected=None, idempotency_key=None)
    (part,) = opened(db).parts
    blocks = list(live_rows(part, 10))
    assert max(map(len, blocks)) <= 10
    assert len(blocks) == 8
    every = np.concatenate(blocks)
    assert part.live.is_live(every).all()
    assert len(every) == 80
    assert (np.diff(every) > 0).all()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 150),
    dim=st.sampled_from([1, 2, 65]),
    metric=st.sampled_from(METRICS),
    parts=st.integers(1, 4),
    copies=st.integers(1, 4),
    k=st.integers(1, 60),
    dead=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 2**32),
)
def test_exact_search_is_exact_for_any_small_data(
    n: int, dim: int, metric: str, parts: int, copies: int, k: int, dead: float, seed: int
) -> None:
    """Rows that are the same, one dimension, more neighbours asked for than there are."""
    rng = generator(seed)
    rows = np.repeat(clustered(rng, n, dim, clusters=3), copies, axis=0)
    db = filled(metric, np.array_split(rows, min(parts, len(rows))))
    gone = np.flatnonzero(rng.random(len(rows)) < dead)
    if len(gone):
        db.delete_rows("ns", gone, expected=None, idempotency_key=None)
    model = {i: rows[i] for i in range(len(rows)) if i not in set(gone.tolist())}
    if model:
        check(db, model, clustered(rng, 3, dim), metric, k, rtol=1e-7)
    else:
        assert exact_search(opened(db), rows[:1], k, ReadTrace()).counts.tolist() == [0]
