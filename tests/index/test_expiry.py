"""Rows are read until their time has passed, and no longer, by a clock that the tests set."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.core import CODED, EXACT, RangeStore, clustered, engine, generator
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import InvalidArgument, RowNotFound
from vecstore.index import expiry
from vecstore.storage.cache import ReadTrace
from vecstore.storage.memory import MemoryStore
from vecstore.types import Aggregates, Hits

DIM = 4
N = 600
START = 1_700_000_000
ROWS = clustered(generator(8), N, DIM)


class Clock:
    def __init__(self) -> None:
        self.now = float(START)

    def __call__(self) -> float:
        return self.now


def at(seconds: float) -> str:
    return (datetime.fromtimestamp(START, UTC) + timedelta(seconds=seconds)).isoformat(
        timespec="milliseconds"
    )


@pytest.fixture(params=[MemoryStore, RangeStore])
def world(request: pytest.FixtureRequest) -> Iterator[tuple[EmbeddedDatabase, Clock]]:
    clock = Clock()
    embedded = engine(request.param(clock=clock))
    yield embedded, clock
    embedded.close()


def filled(embedded: EmbeddedDatabase, *, few: bool) -> tuple[Namespace, dict[int, float | None]]:
    """Rows in three parts that expire between 0 and 100 s, or never; one part lacks the attribute."""
    rng = random.Random(4)
    times: dict[int, float | None] = {}
    for i in range(N):
        whole, exact = float(rng.randrange(1, 5) * 20), rng.randrange(1, 100_000) / 1_000
        times[i] = None if i >= 500 or rng.random() < 0.1 else whole if few else exact
    db = Database(embedded)
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "datetime"}, expire_by="at", **CODED)
    for some in (range(250), range(250, 500), range(500, N)):
        values = [None if (t := times[i]) is None else at(t) for i in some]
        ns.insert(
            ROWS[some.start : some.stop],
            ids=list(some),
            attributes={"at": values, "n": [i % 7 for i in some]},
        )
    return ns, times


def left(times: dict[int, float | None], now: float) -> list[int]:
    return [i for i, t in times.items() if t is None or t > now]


@pytest.mark.parametrize("few", [True, False])
def test_every_read_shows_the_rows_whose_time_has_not_passed(
    world: tuple[EmbeddedDatabase, Clock], few: bool
) -> None:
    embedded, clock = world
    ns, times = filled(embedded, few=few)
    f = ["n", "In", [1, 2]]
    q = ROWS[0] + 0.01
    for now in (0.0, 13.37, 19.999, 20.0, 41.0, 60.5, 99.9995, 100.0, 50.0):  # at last it goes back
        clock.now = START + now
        alive = left(times, now)
        assert sorted(ns.search(q, top_k=N, **EXACT).ids.tolist()) == alive
        some = [i for i in alive if i % 7 in (1, 2)]
        assert sorted(ns.search(q, top_k=N, filter=f, **EXACT).ids.tolist()) == some
        assert ns.search_batch(ROWS[:3], top_k=N, **EXACT).counts.tolist() == [len(alive)] * 3
        assert ns.search(order_by=["id", "asc"], top_k=N).ids.tolist() == alive
        assert [row.id for row in ns.scan()] == alive
        assert [row.id for row in ns.scan(filter=f, limit=2)] == some
        assert ns.aggregate({"n": ["Count"]}).values == {"n": len(alive)}
        assert ns.aggregate({"n": ["Count"]}, filter=f).values == {"n": len(some)}
        assert sum(len(ns.search(q, top_k=N, limit_per_group=("n", k), **EXACT)) for k in (1, N)) == 7 + len(
            alive
        )
        for i in (alive[0], next((i for i in times if i not in alive), None)):
            if i is None:
                continue
            if i in alive:
                assert ns.get(i).id == i
                assert i not in ns.search(id=i, top_k=N).ids
            else:
                for read in (lambda i=i: ns.get(i), lambda i=i: ns.search(id=i)):
                    with pytest.raises(RowNotFound):
                        read()


def test_the_same_view_serves_until_the_next_row_expires(world: tuple[EmbeddedDatabase, Clock]) -> None:
    embedded, clock = world
    _, times = filled(embedded, few=True)  # they expire at 20, 40, 60 and 80 seconds
    docs = embedded.namespace("docs")
    manifest = docs.manifest()
    views = []
    for now in (0.0, 19.9, 20.0, 39.999, 40.0, 79.0, 80.0, 1e6):
        clock.now = START + now
        views.append(docs.live_view(manifest, ReadTrace()))
        assert views[-1].alive == len(left(times, now))
    same = [one is other for one, other in pairwise(views)]
    assert same == [True, False, True, False, False, False, True]
    assert views[0] is docs.views.open(manifest, ReadTrace())


def test_a_request_has_one_time(
    world: tuple[EmbeddedDatabase, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded, clock = world
    ns, times = filled(embedded, few=True)
    original = expiry.unexpired

    def later(*args: Any) -> Any:
        found = original(*args)
        clock.now += 30  # between the view and whatever reads it
        return found

    monkeypatch.setattr("vecstore.engine.namespace.unexpired", later)
    counted, hits = ns.multi_query(
        [{"aggregate_by": {"n": ["Count"]}}, {"vector": ROWS[0], "top_k": N, **EXACT}]
    )
    assert isinstance(counted, Aggregates)
    assert isinstance(hits, Hits)
    assert counted.values == {"n": len(hits)} == {"n": len(left(times, 0.0))}
    expired = next(i for i, t in times.items() if t == 40.0)
    assert len(ns.search(id=expired, top_k=N, **EXACT)) == len(left(times, 30.0)) - 1


def test_compaction_leaves_them_out_for_good(world: tuple[EmbeddedDatabase, Clock]) -> None:
    embedded, clock = world
    ns, times = filled(embedded, few=False)
    before = ns.stats()
    assert before.rows == N
    clock.now = START + 50.0
    ns.compact()
    assert ns.stats().rows == len(left(times, 50.0))
    ns.update(expire_by=None)
    assert sorted(ns.search(ROWS[0], top_k=N, **EXACT).ids.tolist()) == left(times, 50.0)
    # At the epoch before, the setting holds as it was, and the time is that of the read.
    clock.now = START + 10.0
    past = ns.search(ROWS[0], top_k=N, epoch=before.epoch, **EXACT)
    assert sorted(past.ids.tolist()) == left(times, 10.0)


def test_what_dies_while_it_is_left_out_is_carried_nowhere(
    world: tuple[EmbeddedDatabase, Clock], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded, clock = world
    ns, times = filled(embedded, few=False)
    clock.now = START + 50.0
    gone = next(i for i, t in times.items() if t is not None and t < 50.0)
    kept = left(times, 50.0)[0]
    writes = embedded.namespace("docs").writes
    original = writes.upload

    def upload(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(writes, "upload", original)
        ns.delete([gone, kept])
        return original(*args, **kwargs)

    monkeypatch.setattr(writes, "upload", upload)
    embedded.compact("docs", everything=True)  # one merge; `ns.compact` would go on to what died meanwhile
    assert sorted(ns.search(ROWS[0], top_k=N, **EXACT).ids.tolist()) == left(times, 50.0)[1:]
    assert ns.stats().tombstones == 1


def test_expired_rows_wear_a_part_as_dead_ones_do(world: tuple[EmbeddedDatabase, Clock]) -> None:
    embedded, clock = world
    _, times = filled(embedded, few=False)
    assert embedded.compact("docs", everything=False).part_id is None
    clock.now = START + 50.0  # of two parts, some 45 in 100 rows have expired
    for _ in range(2):
        done = embedded.compact("docs", everything=False)
        assert (done.reason, len(done.merged)) == ("dead rows", 1)
    assert embedded.info("docs").rows == len(left(times, 50.0))
    assert embedded.compact("docs", everything=False).part_id is None


def test_all_rows_may_expire(world: tuple[EmbeddedDatabase, Clock]) -> None:
    embedded, clock = world
    db = Database(embedded)
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "datetime"}, expire_by="at")
    ns.insert(ROWS[:5], ids=range(5), attributes={"at": [at(1)] * 5})
    clock.now += 1
    assert len(ns.search(ROWS[0])) == 0
    assert ns.aggregate({"n": ["Count"]}).values == {"n": 0}
    ns.compact()
    assert (ns.stats().rows, ns.stats().parts) == (0, 0)
    ns.insert(ROWS[:1], ids=[9])
    assert ns.search(ROWS[0]).ids.tolist() == [9]


def test_rows_expire_by_a_filterable_datetime_alone(world: tuple[EmbeddedDatabase, Clock]) -> None:
    embedded, _ = world
    db = Database(embedded)
    schema = {"at": "datetime", "n": "int", "a": "[]datetime", "p": {"type": "datetime", "filterable": False}}
    ns = db.create_namespace("docs", DIM, "l2", schema=schema)
    for name in ("n", "a", "p", "missing"):
        with pytest.raises(InvalidArgument) as refused:
            ns.update(expire_by=name)
        assert refused.value.details["field"] == "expire_by"
        with pytest.raises(InvalidArgument):
            db.create_namespace("other", DIM, "l2", schema=schema, expire_by=name)
    assert ns.update(expire_by="at").defaults["expire_by"] == "at"
    with pytest.raises(InvalidArgument) as refused:
        ns.update(schema={"at": None})
    assert refused.value.details["field"] == "expire_by"
    assert "at" in ns.update(expire_by=None).schema
    assert "at" not in ns.update(schema={"at": None}).schema
    assert ns.update(schema={"until": "datetime"}, expire_by="until").defaults["expire_by"] == "until"
    assert np.isfinite(ns.stats().updated_at)
