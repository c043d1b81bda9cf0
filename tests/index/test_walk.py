"""Live rows by id and as stored: each once, in order, and no more looked at than a page needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.core import RangeStore, database, engine, generator
from vecstore.api import Database, Namespace
from vecstore.index.view import View
from vecstore.index.walk import Walked, as_stored, by_id
from vecstore.limits import MAX_U64
from vecstore.storage.cache import ReadTrace

Page = Callable[[int, int, int], Walked]


def view_of(db: Database, name: str = "docs") -> View:
    opened = db.backend.namespace(name)  # type: ignore[attr-defined]
    view: View = opened.views.open(opened.manifest(), ReadTrace())
    return view


def pages(db: Database, by: str) -> Page:
    view = view_of(db)
    executor = db.backend.namespace("docs").executor  # type: ignore[attr-defined]
    if by == "id":
        return lambda start, need, most: by_id(view, start, need, most, ReadTrace(), executor)
    return lambda start, need, most: as_stored(view, start, need, most)


def walk(page: Page, need: int, most: int = 1 << 20) -> tuple[list[tuple[int, int]], list[int], int]:
    """Part and row of all, their places, and how many pages that took."""
    rows: list[tuple[int, int]] = []
    places: list[int] = []
    start, count = 0, 0
    while True:
        some = page(start, need, most)
        assert len(some.rows) <= need
        rows += zip(some.parts.tolist(), some.rows.tolist(), strict=True)
        places += some.places.tolist()
        count += 1
        if some.next is None:
            return rows, places, count
        assert some.next > start or not count
        start = some.next


def filled(seed: int, ids: str, store: Any = None) -> tuple[Database, Namespace, set[int]]:
    """A namespace of many parts of all sizes with deleted and replaced rows, and the ids that it has."""
    rng = generator(seed)
    db = database(store)
    ns = db.create_namespace("docs", 2, "l2")
    alive: set[int] = set()
    for _ in range(12):
        n = int(rng.choice([1, 3, 40, 900, 9_000]))
        if ids == "assigned":
            given = None
        elif ids == "dense":
            given = rng.choice(20_000, n, replace=False)
        else:
            given = np.unique(rng.integers(0, MAX_U64, n, dtype=np.uint64, endpoint=True))
        done = ns.insert(rng.standard_normal((n if given is None else len(given), 2)), given)
        alive |= set((done.ids if given is None else given).tolist())
        gone = rng.choice(sorted(alive), len(alive) // 5, replace=False).tolist()
        if gone:
            ns.delete(np.array(gone, dtype=np.uint64))
            alive -= set(gone)
    return db, ns, alive


@pytest.mark.parametrize("ids", ["assigned", "dense", "sparse"])
@pytest.mark.parametrize("need", [97, 5_000])
def test_each_live_row_is_walked_once_in_ascending_order_of_ids(ids: str, need: int) -> None:
    db, _, alive = filled(need, ids)
    _, places, _ = walk(pages(db, "id"), need)
    assert places == sorted(alive)


@pytest.mark.parametrize("ids", ["assigned", "sparse"])
def test_each_live_row_is_walked_once_as_stored(ids: str) -> None:
    db, _, alive = filled(2, ids)
    view = view_of(db)
    rows, places, _ = walk(pages(db, "stored"), 211)
    assert rows == sorted(set(rows))
    assert places == sorted(set(places))
    found = [view.parts[part].reader.ids_of(np.array([row]), ReadTrace())[0] for part, row in rows[::37]]
    assert {int(one) for one in found} <= alive
    assert len(rows) == len(alive)


@pytest.mark.parametrize("by", ["id", "stored"])
def test_a_page_looks_at_no_more_than_it_may_and_the_walk_still_ends(by: str) -> None:
    db = database()
    ns = db.create_namespace("docs", 2, "l2")
    ns.insert(np.ones((40_000, 2)), range(40_000))
    ns.delete(range(39_997))
    assert walk(pages(db, by), 10)[1:] == ([39_997, 39_998, 39_999], 1)
    rows, places, count = walk(pages(db, by), 10, most=8_192)
    assert (len(rows), places) == (3, [39_997, 39_998, 39_999])
    assert count == 5


@pytest.mark.parametrize("by", ["id", "stored"])
def test_the_ends_of_the_range_and_an_empty_namespace(by: str) -> None:
    db = database()
    ns = db.create_namespace("docs", 2, "l2")
    assert walk(pages(db, by), 3) == ([], [], 1)
    ns.insert(np.ones((3, 2)), np.array([0, 5, MAX_U64], dtype=np.uint64))
    rows, places, count = walk(pages(db, by), 3)
    assert len(rows) == 3
    assert count == 1
    assert by == "stored" or places == [0, 5, MAX_U64]
    assert len(walk(pages(db, by), 1)[0]) == 3


def test_a_page_reads_in_proportion_to_itself() -> None:
    """Of four parts with a range of ids each, only that is read whose ids come next; of others nothing."""
    db = Database(engine(RangeStore()))
    ns = db.create_namespace("docs", 2, "l2")
    for start in range(0, 200_000, 50_000):
        ns.insert(np.ones((50_000, 2)), np.arange(start, start + 50_000))
    view = view_of(db)
    trace = ReadTrace()
    found = by_id(view, 70_000, 1_000, 1 << 20, trace, db.backend.namespace("docs").executor)  # type: ignore[attr-defined]
    assert found.places.tolist() == list(range(70_000, 71_000))
    assert trace.bytes <= 2 * (64 << 10)  # a page of keys and one of rows, of 2.4 MB
    assert trace.trips == 1
