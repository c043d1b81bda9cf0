"""Batches against the same queries one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.ext.helpers import VARIANTS, variant
from tests.ext.test_search import METRICS, PAGE, World, answer, same
from vecstore.ext import rabitq
from vecstore.ext.batch import GROUP, Batch
from vecstore.ext.field import Field, Plan
from vecstore.ext.search import Searcher
from vecstore.types import F32, Metric


def room(m: int, top_k: int) -> tuple[Any, ...]:
    shape = (m, top_k)
    return (
        np.zeros(shape, np.uint64),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int64),
        np.zeros(m, np.int64),
    )


def many(world: World, count: int = GROUP) -> F32:
    """Queries near each other, so that several share each list."""
    rng = np.random.default_rng(5)
    noise = 0.05 * rng.standard_normal((count, world.dim))
    return (np.resize(world.queries, (count, world.dim)) + noise).astype(np.float32)


def assert_one_by_one(world: World, field: Field, plan: Plan, queries: F32, out: tuple[Any, ...]) -> None:
    for i, q in enumerate(queries):
        n = int(out[4][i])
        assert same(tuple(column[i, :n] for column in out[:4]), answer(world, field, plan, q))


@pytest.mark.parametrize("precision", ["none", "int8", "fp32"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_batch_is_its_queries_one_by_one(metric: Metric, precision: str) -> None:
    world = World(100, metric)
    field, batch, queries = world.field(), Batch(128), many(world)
    for top_k in (10, world.alive + 3):
        plan = world.plan(top_k, 2, precision=precision, pool=2 * top_k, patience=2.5, margin=0.8, looks=6)
        out = room(len(queries), top_k)
        assert batch.run(field, plan, queries, *out) == []
        assert_one_by_one(world, field, plan, queries, out)


@pytest.mark.parametrize("precision", ["none", "int8", "fp32"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_direct_batch_is_its_queries_one_by_one(metric: Metric, precision: str) -> None:
    world = World(100, metric)
    field, batch, queries = world.field(), Batch(128), many(world)
    for top_k in (10, world.alive + 3):
        for reach in (0.0, 1.1):
            more = {"reach": np.full(4, reach, np.float32), "patience": 2.5, "looks": 6}
            plan = world.plan(top_k, 2, precision=precision, direct=True, **more)
            out = room(len(queries), top_k)
            assert batch.run(field, plan, queries, *out) == []
            assert_one_by_one(world, field, plan, queries, out)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_queries_that_look_again_are_answered_as_one_by_one(precision: str) -> None:
    world = World(100, "l2")
    field, batch, queries, looks = world.field(), Batch(128), many(world), set()
    reach = np.array([0.8, 0.0, 0.8, 0.0], np.float32)
    plan = world.plan(10, 2, precision=precision, pool=12, reach=reach, margin=0.8, looks=6)
    out = room(len(queries), 10)
    assert batch.run(field, plan, queries, *out) == []
    assert_one_by_one(world, field, plan, queries, out)
    searcher = Searcher(128)
    for q in queries:
        assert searcher.begin(field, plan, q) is None
        looks.add(searcher.counts().looks)
    assert len(looks) > 1  # some went round more often than others


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_shares_loads_alike(name: str) -> None:
    world = World(100, "l2")
    field, plan, seen = world.field(), world.plan(10, 3, precision="int8", pool=20), []
    for which in ("serial", name):
        with variant(which):
            out = room(7, 10)
            assert Batch(128).run(field, plan, many(world, 7), *out) == []
            seen.append(out)
    assert all(np.array_equal(one, other) for one, other in zip(*seen, strict=True))


@pytest.mark.parametrize("name", rabitq.simd_available())
def test_lists_that_are_near_the_last_hit_are_reached(name: str) -> None:
    world = World(100, "l2")
    field, queries = world.field(), many(world, 9)
    reach = np.full(len(world.parts), 1e9, np.float32)
    plan = world.plan(10, 1, reach=reach, looks=6, pool=world.alive)
    with variant(name):
        out = room(9, 10)
        assert Batch(128).run(field, plan, queries, *out) == []
        for i, q in enumerate(queries):
            truth = sorted(world.distances(q).items(), key=lambda item: item[1])[:10]
            assert list(zip(out[2][i].tolist(), out[3][i].tolist(), strict=True)) == [row for row, _ in truth]


def test_queries_that_miss_something_are_told_and_the_others_answered() -> None:
    world = World(64, "l2")
    known = [np.zeros(len(part.sizes), np.uint64) for part in world.parts]
    field = Field(64, "l2", world.rotation.signs, world.means, PAGE, True)
    for part, addresses in zip(world.parts, known, strict=True):
        part.add_to(field, True, addresses)
    plan, batch, queries, out = world.plan(10), Batch(64), many(world, 5), room(5, 10)
    assert batch.run(field, plan, queries, *out) == [0, 1, 2, 3, 4]
    assert not out[4].any()
    for part, addresses in zip(world.parts, known, strict=True):
        addresses[:] = part.addresses
    assert batch.run(field, plan, queries, *out) == []
    assert_one_by_one(world, field, plan, queries, out)


def test_a_batch_of_no_queries_is_answered() -> None:
    world = World(64, "l2")
    assert Batch(64).run(world.field(), world.plan(), world.queries[:0], *room(0, 10)) == []


def test_a_batch_that_does_not_fit_is_refused_and_harms_nothing() -> None:
    world = World(64, "l2")
    field, plan, queries, batch = world.field(), world.plan(), world.queries, Batch(64)
    out = room(len(queries), 10)
    for arguments in (
        (field, plan, queries, *room(len(queries), 9)),
        (field, plan, queries, *room(len(queries) + 1, 10)),
        (field, plan, queries, *out[:4], out[4][:-1]),
        (field, plan, queries[:, :-1].copy(), *out),
        (field, plan, many(world, GROUP + 1), *room(GROUP + 1, 10)),
        (world.field(resident=False), plan, queries, *out),
        (World(100, "l2").field(), plan, np.zeros((1, 100), np.float32), *room(1, 10)),
    ):
        with pytest.raises(ValueError):
            batch.run(*arguments)
    assert batch.run(field, plan, queries, *out) == []
    assert_one_by_one(world, field, plan, queries, out)
