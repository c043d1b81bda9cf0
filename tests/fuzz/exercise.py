"""What is asked of a store that was changed: every public way to its bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from random import Random
from typing import Any

from tests.core import EXACT
from tests.fuzz.dice import Dice
from tests.fuzz.worlds import NS, World, attributes
from vecstore.api import Database, Namespace
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import VecstoreError
from vecstore.maintenance.verify import verify
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore

FILTERS: tuple[Any, ...] = (
    ["n", "Lt", 300],
    ["n", "Eq", 37],
    ["u", "Gt", 2**63],
    ["year", "Eq", 2002],
    ["year", "NotIn", [2001, None]],
    ["score", "Gte", 0.5],
    ["flag", "Eq", True],
    ["word", "Eq", "word 3"],
    ["word", "In", ["word 1", "word 4", None]],
    ["text", "Glob", "text of row 1*"],
    ["text", "Regex", "row [0-9]*7 "],
    ["text", "Gte", "text of row 5"],
    ["at", "Gte", "2300-01-03"],
    ["who", "NotEq", None],
    ["tags", "Contains", "t1"],
    ["tags", "ContainsAny", ["t2", "t0"]],
    ["sizes", "AnyGt", 4],
    ["And", [["year", "Gte", 2001], ["Not", ["word", "Eq", "word 2"]], ["flag", "NotEq", None]]],
    ["Or", [["n", "Eq", 74], ["score", "Lt", -5], ["tags", "Eq", None]]],
    ["id", "NotEq", None],
)
SCALARS = ("n", "u", "year", "score", "flag", "word", "text", "at", "who", "id")
NUMBERS = ("n", "u", "year", "score")

Way = Callable[[Namespace, World, Dice], object]


class RangeStore(MemoryStore):
    """Objects cannot be mapped, so that they are read by ranges through the page cache."""

    def map(self, key: str) -> None:
        return None


class Inline(Executor):
    """Carries out what it is given at once, in the thread that asks."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Unthreaded(EmbeddedDatabase):
    """Reads one after another: threads cost more than all else that is done here."""

    def _get_executor(self) -> Any:
        return Inline()


def ask(world: World, objects: dict[str, bytes], dice: Dice, *, most: int = 3) -> list[VecstoreError]:
    """Open a store and ask of it what the dice say. Errors of our own are answers, all else is a finding."""
    kind, refused = dice.byte(), []
    store: MemoryStore = (MemoryStore if kind & 1 else RangeStore)("fuzz", clock=lambda: 1_700_000_100.0)
    for key, data in objects.items():
        store.put_if_absent(key, data)
    backend = Unthreaded(store, rng=Random(1), threads=1, sleep=lambda _: None)
    with Database(backend) as db:
        for _ in range(1 + dice.below(most)):
            way = dice.of(WAYS)
            try:
                way(Namespace(db.backend, NS), world, dice)
            except VecstoreError as error:
                refused.append(error)
    store.close()
    return refused


def _filters(world: World) -> tuple[Any, ...]:
    return FILTERS if world.attributes else FILTERS[-1:]


def _scalars(world: World) -> tuple[str, ...]:
    return SCALARS if world.attributes else SCALARS[-1:]


def _filter(world: World, dice: Dice) -> Any:
    return dice.of((None, *_filters(world)))


def _options(dice: Dice) -> dict[str, Any]:
    return dice.of(
        (
            {},
            {"nprobe": 1},
            {"target_recall": 0.9},
            {"target_recall": 0.999},
            {"probe_fraction": 1.0},
            {"probe_fraction": 1.0, "rerank_precision": "fp32"},
            {"rerank_scale": 0},
            {"rerank_precision": "int8", "rerank_scale": 1000.0},
            EXACT,
        )
    )


def _q(world: World, dice: Dice) -> Any:
    return world.queries[dice.below(len(world.queries))]


def search(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(_q(world, dice), dice.of((10, 1, 1000)), **_options(dice))


def search_whole(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(_q(world, dice), 50, exclude=(), debug=True, **_options(dice))
    ns.search(_q(world, dice), 5, include=["vector"])


def search_filtered(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(_q(world, dice), dice.of((10, 200)), filter=dice.of(_filters(world)), **_options(dice))


def search_batch(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search_batch(world.queries, 10, filter=_filter(world, dice), **_options(dice))


def search_like(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(id=dice.of(world.ids), top_k=5, filter=_filter(world, dice), exclude=())


def search_ordered(ns: Namespace, world: World, dice: Dice) -> None:
    order = (dice.of(_scalars(world)), dice.of(("asc", "desc")))
    ns.search(order_by=order, top_k=dice.of((10, 400)), filter=_filter(world, dice), include=["vector"])


def search_grouped(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(_q(world, dice), 20, limit_per_group=(dice.of(SCALARS[:-1]), 2), filter=_filter(world, dice))


def get(ns: Namespace, world: World, dice: Dice) -> None:
    for _ in range(4):
        try:
            ns.get(dice.of(world.ids))
        except VecstoreError:
            continue


def aggregate(ns: Namespace, world: World, dice: Dice) -> None:
    name, number = dice.of(SCALARS[:-1]), dice.of(NUMBERS)
    by = {
        "rows": ["Count"],
        "some": ["Count", name],
        "distinct": ["CountDistinct", name],
        "least": ["Min", name],
        "greatest": ["Max", name],
        "sum": ["Sum", number],
        "mean": ["Avg", number],
    }
    groups = [dice.of(SCALARS[:-1])] if dice.below(2) else None
    ns.aggregate(by, group_by=groups, filter=_filter(world, dice))


def scan(ns: Namespace, world: World, dice: Dice) -> None:
    order: Any = dice.of((None, "stored"))
    whole = ns.scan(filter=_filter(world, dice), exclude=(), order=order, limit=dice.of((1000, 7)))
    for _ in zip(whole, range(200), strict=False):
        pass
    for _ in zip(ns.scan(include=["vector"]), range(200), strict=False):
        pass


def queries(ns: Namespace, world: World, dice: Dice) -> None:
    ns.multi_query(
        [
            {"vector": _q(world, dice), "top_k": 3, "filter": _filter(world, dice)},
            {"order_by": [dice.of(_scalars(world)), "desc"]},
            {"aggregate_by": {"n": ["Count"]}},
        ]
    )


def recall(ns: Namespace, world: World, dice: Dice) -> None:
    ns.measure_recall(sample=10, top_k=5, filter=_filter(world, dice))


def insert(ns: Namespace, world: World, dice: Dice) -> None:
    some = [world.ids[dice.below(len(world.ids))] for _ in range(3)]
    values = attributes(3, 5) if dice.below(2) else None
    ns.insert(world.queries[:3], some if len(set(some)) == 3 else (world.ids * 3)[:3], attributes=values)
    ns.search(_q(world, dice))


def delete(ns: Namespace, world: World, dice: Dice) -> None:
    if dice.below(2):
        ns.delete(filter=dice.of(_filters(world)))
    else:
        ns.delete([dice.of(world.ids) for _ in range(2)] if dice.below(2) else world.ids[:50])
    ns.search(_q(world, dice), 20)


def patch(ns: Namespace, world: World, dice: Dice) -> None:
    if dice.below(2):
        ns.patch(filter=dice.of(_filters(world)), attributes={"word": "other", "n": 5})
    else:
        ns.patch(world.ids[:9:2], {"year": [1, 2, None, 4, 5]}, condition=_filter(world, dice))
    ns.search(_q(world, dice), 20, exclude=())


def compact(ns: Namespace, world: World, dice: Dice) -> None:
    ns.compact(everything=True)
    ns.search(_q(world, dice), 20, exclude=())


def check(ns: Namespace, world: World, dice: Dice) -> None:
    store: ObjectStore = ns._backend.store  # type: ignore[attr-defined]
    verify(store)


def history(ns: Namespace, world: World, dice: Dice) -> None:
    ns.search(_q(world, dice), epoch=1 + dice.below(8))
    ns.tags()
    other = ns.branch("branch", dice.of((None, 3, 4)))
    other.search(_q(world, dice))
    other.delete(world.ids[:9])
    stats = ns.stats()
    ns.restore(1 + dice.below(6), if_match=(stats.incarnation, stats.epoch))
    ns.search(_q(world, dice))


def collect(ns: Namespace, world: World, dice: Dice) -> None:
    ns.gc(retention=0.0, grace=0.0, dry_run=bool(dice.below(2)))
    ns.search(_q(world, dice))


def describe(ns: Namespace, world: World, dice: Dice) -> None:
    ns.stats()
    ns.manifest()
    ns.warm()
    ns.update(nprobe_cap=5, schema={"new": "int"})


WAYS: tuple[Way, ...] = (
    search,
    search_whole,
    search_filtered,
    search_filtered,
    search_batch,
    search_like,
    search_ordered,
    search_grouped,
    get,
    aggregate,
    scan,
    queries,
    recall,
    insert,
    delete,
    patch,
    compact,
    check,
    history,
    collect,
    describe,
)
