"""A query in one call: against the exact answer by NumPy, and against its stages one by one."""

from __future__ import annotations

import sys
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.ext.helpers import VARIANTS, padded, variant
from vecstore.ext import ivf, rabitq, records, rerank
from vecstore.ext.field import Field, Plan
from vecstore.ext.rabitq import QueryTable, encode_rabitq
from vecstore.ext.search import Missing, Searcher
from vecstore.index.rotation import Rotation

F32 = NDArray[np.float32]
Metric = Literal["l2", "dot", "cosine"]
Dtype = Literal["f4", "f2"]
Row = tuple[int, int]  # number of the part, row in it
PAGE = 4096
CELLS = 3


@dataclass
class Part:
    """Rows in lists (or, without codes, in one record that is scanned exactly), some of them dead."""

    number: int
    rotation: Rotation
    metric: Metric
    seed: int
    sizes: list[int]
    group: int = 0
    mean: F32 | None = None
    small: bool = False
    dtype: Dtype | None = "f4"
    dead: float = 0.2
    int8: bool = True
    id_base: int = 0
    x: F32 = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        lists, n, dim = len(self.sizes), sum(self.sizes), self.rotation.dim
        centres = np.sort(rng.integers(0, CELLS, lists))[:, None] + rng.standard_normal((lists, dim))
        owner = np.repeat(np.arange(lists), self.sizes)
        x = (centres[owner] + 0.5 * rng.standard_normal((n, dim))).astype(np.float32)
        self.vectors = x if self.dtype is None else x.astype(self.dtype)
        self.x = self.vectors.astype(np.float32)
        rows = self.x
        if self.metric == "cosine":
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        z = self.rotation.apply(np.ascontiguousarray(rows, np.float32), self.mean)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        means = np.zeros((lists, z.shape[1]), np.float32)
        np.add.at(means, owner, z)
        means /= np.maximum(1, np.asarray(self.sizes, np.float32))[:, None]
        c8, scales = records.quantise_centroids(means)
        self.ids = self.id_base + 3 * np.arange(n) + 7
        codes = not self.small
        lengths = [padded(ivf.record_layout(m, z.shape[1], codes, self.int8)[3] + 8 * m) for m in self.sizes]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.records = np.zeros(offsets[-1] + 64, np.uint8)
        at = -self.records.ctypes.data % 64
        shift = (rows**2).sum(1) if self.metric == "dot" else None
        stored = (3 * np.arange(n) + 7).astype(np.uint64)
        out = self.records[at : at + offsets[-1]]
        records.encode_lists(z, self.starts, c8, scales, shift, stored, codes, self.int8, offsets, out)
        self.addresses = (self.records.ctypes.data + at + offsets[:-1]).astype(np.uint64)
        blocks = -(-np.asarray(self.sizes) // 32)
        self.first_blocks = (np.cumsum(blocks) - blocks).astype(np.int64)
        self.live = rng.random(n) >= self.dead
        self.words = np.full(blocks.sum(), 0xFFFFFFFF, np.uint32)  # slots beyond the last are a trap
        slots = np.arange(n) - self.starts[owner]
        for row in np.flatnonzero(~self.live):
            block = self.first_blocks[owner[row]] + slots[row] // 32
            self.words[block] &= np.uint32(0xFFFFFFFF ^ (1 << int(slots[row]) % 32))
        # Cells of about as many lists each, the first of none.
        bounds = np.linspace(0, lists, CELLS).astype(np.uint32)
        self.cell_lists = np.concatenate([np.zeros(1, np.uint32), bounds])
        exact = c8.astype(np.float32) * scales[:, None]
        self.cells = np.zeros((CELLS, z.shape[1]), np.float32)
        coded = [np.empty(0, np.uint8)]
        for cell, (a, b) in enumerate(zip(self.cell_lists[:-1], self.cell_lists[1:], strict=True)):
            if b > a:
                self.cells[cell] = exact[a:b].mean(0)
                coded.append(encode_rabitq(exact[a:b], self.cells[cell]))
        self.codes = np.concatenate(coded)
        self.pages = np.ones(-(-self.vectors.nbytes // PAGE), np.uint8)

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def k(self) -> int:
        return 0 if self.small else len(self.sizes)

    def add_to(self, field: Field, resident: bool, known: NDArray[np.uint64] | None = None) -> None:
        if self.small:
            field.add_small(self.number, self.group, self.words, self.n, self.dtype, self.id_base)
            if resident:
                field.place_small(self.number, int(self.addresses[0]), self.where)
            return
        field.add_coded(
            self.number,
            self.group,
            self.words,
            self.cells,
            self.cell_lists,
            self.codes,
            self.starts[:-1],
            self.first_blocks,
            (self.addresses if known is None else known) if resident else None,
            self.n,
            self.dtype,
            self.where if resident else 0,
            self.pages if resident else None,
            self.id_base,
        )

    @property
    def where(self) -> int:
        return 0 if self.dtype is None else self.vectors.ctypes.data

    def vector_addresses(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        step = self.vectors.itemsize * self.vectors.shape[1]
        return np.asarray(self.vectors.ctypes.data + step * rows, np.uint64)


class World:
    """Some parts as a field, and what is true of them."""

    def __init__(self, dim: int, metric: Metric, *, seed: int = 1, dtype: Dtype | None = "f4") -> None:
        rng = np.random.default_rng(seed)
        self.dim, self.metric = dim, metric
        self.rotation = Rotation(dim, seed)
        self.means: list[F32 | None] = [None, (rng.standard_normal(dim) * 0.3).astype(np.float32)]
        sizes = rng.integers(0, 80, 9).tolist()
        self.parts = [
            self.part(0, [*sizes, 1, 31, 32, 33], seed, dtype=dtype),
            self.part(2, [21], seed + 1, small=True, dtype=dtype, group=1),
            self.part(3, [90, 40], seed + 2, dtype=dtype, group=1, id_base=1 << 40),
            self.part(7, [70], seed + 3, small=True, dtype=dtype, dead=0.0, id_base=5),
        ]
        self.queries = np.concatenate([part.x[:4] for part in self.parts])
        self.queries += (0.3 * rng.standard_normal(self.queries.shape)).astype(np.float32)

    def part(self, number: int, sizes: list[int], seed: int, *, group: int = 0, **more: Any) -> Part:
        mean = self.means[group]
        return Part(number, self.rotation, self.metric, seed, sizes, group=group, mean=mean, **more)

    @property
    def alive(self) -> int:
        return int(sum(part.live.sum() for part in self.parts))

    def field(self, resident: bool = True) -> Field:
        made = Field(self.dim, self.metric, self.rotation.signs, self.means, PAGE, resident, 2.0)
        for part in self.parts:
            part.add_to(made, resident)
        return made

    def plan(self, top_k: int = 10, probes: int | None = None, **changed: Any) -> Plan:
        counts = np.array([part.k for part in self.parts], np.int32)
        values: dict[str, Any] = {
            "top_k": top_k,
            "pool": max(top_k, self.alive),
            "most": max(1, self.alive),
            "alive": self.alive,
            "precision": "fp32",
            "fp32_cap": 10_000,
            "probes": counts if probes is None else np.minimum(counts, probes).astype(np.int32),
            "limits": counts,
            "reach": np.zeros(len(self.parts), np.float32),
            "patience": 0.0,
            "margin": 0.0,
            "widen": 4,
            "looks": 0,
        }
        return Plan(**{**values, **changed})

    def distances(self, q: F32) -> dict[Row, float]:
        """Of all live rows, as they are public."""
        found: dict[Row, float] = {}
        wide = q.astype(np.float64)
        for part in self.parts:
            x = part.x.astype(np.float64)
            if self.metric == "l2":
                d = ((x - wide) ** 2).sum(1)
            elif self.metric == "dot":
                d = -(x @ wide)
            else:
                d = 1 - x @ wide / np.linalg.norm(x, axis=1) / np.linalg.norm(wide)
            found.update(((part.number, int(row)), float(d[row])) for row in np.flatnonzero(part.live))
        return found

    def ids(self, parts: NDArray[np.int32], rows: NDArray[np.int64]) -> list[int]:
        known = {part.number: part.ids for part in self.parts}
        return [int(known[p][r]) for p, r in zip(parts.tolist(), rows.tolist(), strict=True)]

    def read(self, searcher: Searcher, missing: Missing) -> None:
        known = {part.number: part for part in self.parts}
        for number, lists in missing.lists.items():
            searcher.give_lists(number, lists, known[number].addresses[lists], known[number])
        for number in missing.small:
            part = known[number]
            searcher.give_small(number, int(part.addresses[0]), part.where, part)
        for number, (places, rows) in missing.vectors.items():
            searcher.give_vectors(places, known[number].vector_addresses(rows), known[number])


def answer(
    world: World, field: Field, plan: Plan, q: F32, searcher: Searcher | None = None
) -> tuple[NDArray[np.uint64], F32, NDArray[np.int32], NDArray[np.int64]]:
    searcher = Searcher(field.padded_dim) if searcher is None else searcher
    missing = searcher.begin(field, plan, q)
    while missing is not None:
        world.read(searcher, missing)
        missing = searcher.run()
    return searcher.hits()


def same(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


METRICS: list[Metric] = ["l2", "dot", "cosine"]


# -- the exact answer ------------------------------------------------------------------------


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "given"])
@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("dim", [5, 64, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_with_all_lists_and_vectors_the_answer_is_exact(
    metric: Metric, dim: int, dtype: Dtype, resident: bool
) -> None:
    world = World(dim, metric, dtype=dtype)
    field, searcher = world.field(resident), Searcher(padded(dim))
    for top_k in (1, 10, 2 * world.alive):
        for q in world.queries:
            ids, distances, parts, rows = answer(world, field, world.plan(top_k), q, searcher)
            truth = world.distances(q)
            wanted = np.sort(list(truth.values()))[:top_k]
            found = list(zip(parts.tolist(), rows.tolist(), strict=True))
            assert len(found) == len(set(found)) == min(top_k, world.alive)
            assert distances == pytest.approx(wanted, rel=1e-4, abs=1e-4)
            assert distances == pytest.approx([truth[row] for row in found], rel=1e-4, abs=1e-4)
            assert (np.diff(distances) >= 0).all()
            assert ids.tolist() == world.ids(parts, rows)
            assert searcher.counts().scanned == world.alive


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "given"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_direct_scan_finds_what_a_pool_of_all_rows_finds(
    metric: Metric, precision: str, resident: bool
) -> None:
    world = World(100, metric)
    field, searcher = world.field(resident), Searcher(128)
    agreed = wanted = spared = 0
    for top_k in (1, 10, 2 * world.alive):
        for q in world.queries:
            plan = world.plan(top_k, precision=precision)
            pooled = answer(world, field, plan, q)
            plan = world.plan(top_k, precision=precision, pool=top_k, direct=True)
            ids, distances, parts, rows = answer(world, field, plan, q, searcher)
            truth = world.distances(q)
            found = list(zip(parts.tolist(), rows.tolist(), strict=True))
            assert len(found) == len(set(found)) == min(top_k, world.alive)
            assert ids.tolist() == world.ids(parts, rows)
            assert (np.diff(distances) >= 0).all()
            if precision == "fp32":
                assert distances == pytest.approx([truth[row] for row in found], rel=1e-4, abs=1e-4)
            agreed += len(set(found) & set(zip(pooled[2].tolist(), pooled[3].tolist(), strict=True)))
            wanted += len(found)
            assert searcher.counts().scanned == world.alive
            spared += world.alive - searcher.counts().reranked
    assert agreed >= 0.98 * wanted
    assert spared > 0  # most rows were not read as int8


def test_a_direct_scan_that_looks_again_scans_no_row_twice() -> None:
    world = World(100, "l2")
    field, searcher, looks = world.field(), Searcher(128), 0
    reach = np.array([50.0, 0.0, 50.0, 0.0], np.float32)
    for q in world.queries:
        plan = world.plan(10, 1, precision="fp32", pool=10, reach=reach, margin=0.8, looks=6, direct=True)
        _, _, parts, rows = answer(world, field, plan, q, searcher)
        looks += searcher.counts().looks
        assert searcher.counts().scanned == world.alive
        assert len(set(zip(parts.tolist(), rows.tolist(), strict=True))) == 10
    assert looks >= len(world.queries)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["f4", None])
def test_without_vectors_distances_are_those_of_int8(metric: Metric, dtype: Dtype | None) -> None:
    world = World(100, metric, dtype=dtype)
    for q in world.queries:
        _, distances, parts, rows = answer(world, world.field(), world.plan(20, precision="int8"), q)
        truth = world.distances(q)
        found = [truth[row] for row in zip(parts.tolist(), rows.tolist(), strict=True)]
        assert distances == pytest.approx(found, rel=0.02, abs=0.05 * np.ptp(list(truth.values())))


def stages(world: World, plan: Plan, probes: int, q: F32) -> list[tuple[int, int, float]]:
    """The same query by one kernel after another, for l2 and without vectors."""
    tables = []
    for mean in world.means:
        tables.append(QueryTable(world.rotation.padded_dim))
        tables[-1].take(q, mean, world.rotation.signs)
    hits: list[tuple[float, int, int]] = []
    pools = {group: ivf.Pool(plan.pool) for group in range(len(tables))}
    whole = ivf.Pool(plan.pool)
    for part in world.parts:
        if part.small:
            exact = ivf.Pool(1_000)
            record = int(part.addresses[0])
            ivf.scan_int8(tables[part.group], exact, part.number, record, 0, part.words)
            found = exact.entries()
            hits += zip(found.estimate.tolist(), found.part.tolist(), found.row.tolist(), strict=True)
            continue
        lists = ivf.rank_lists(tables[part.group], part.cells, part.cell_lists, part.codes, probes)
        for pool in (pools[part.group], whole):
            ivf.scan_lists(
                tables[part.group],
                pool,
                part.number,
                part.addresses[lists],
                part.starts[:-1][lists],
                part.first_blocks[lists],
                part.words,
            )
    entries = whole.entries()
    kept = set(zip(entries.part.tolist(), entries.row.tolist(), strict=True))
    for group, pool in pools.items():
        if plan.precision == "none":
            few = rerank.pool_hits(pool, plan.pool)
        else:
            few = rerank.rerank_int8(tables[group], pool, plan.pool)
        triples = zip(few.distance.tolist(), few.part.tolist(), few.row.tolist(), strict=True)
        hits += [hit for hit in triples if hit[1:] in kept]
    nearest = sorted(hits)[: plan.top_k]
    return [(part, row, max(0.0, distance)) for distance, part, row in nearest]


@pytest.mark.parametrize("precision", ["none", "fp32"])
@pytest.mark.parametrize("probes", [1, 2, 5, 13])
def test_one_call_is_its_stages_one_after_another(precision: str, probes: int) -> None:
    """With "fp32" all candidates are read as int8; there are no vectors to go on to."""
    world = World(100, "l2", dtype=None)
    field, searcher = world.field(), Searcher(128)
    for pool in (20, 60, world.alive):
        plan = world.plan(15, probes, precision=precision, pool=pool)
        for q in world.queries:
            _, distances, parts, rows = answer(world, field, plan, q, searcher)
            got = list(zip(parts.tolist(), rows.tolist(), distances.tolist(), strict=True))
            assert got == stages(world, plan, probes, q)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("metric", METRICS)
def test_every_variant_gives_the_same_hits(name: str, metric: Metric) -> None:
    world = World(100, metric, dtype="f2")
    searcher = Searcher(128)
    for precision in ("none", "int8", "fp32"):
        plan = world.plan(15, 3, precision=precision, pool=60, patience=2.5, margin=0.8, looks=6)
        for q in world.queries:
            seen = []
            for which in ("serial", name):
                with variant(which):
                    seen.append(answer(world, world.field(), plan, q, searcher))
            assert same(*seen)


# -- an answer is full, and holds no row twice -----------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(1, 30),
    metric=st.sampled_from(METRICS),
    top_k=st.sampled_from([1, 3, 10, 100, 5_000]),
    probes=st.integers(0, 14),
    pool=st.sampled_from([1, 2, 10]),
    precision=st.sampled_from(["none", "int8", "fp32"]),
    cap=st.sampled_from([0, 1, 7, 10_000]),
    patience=st.sampled_from([0.0, 1.0, 2.5, 1e30]),
    reach=st.sampled_from([0.0, 0.5, 1.0, 1.3, 1e30]),
    margin=st.sampled_from([0.0, 0.8, 1e30]),
    looks=st.integers(0, 6),
    direct=st.booleans(),
    resident=st.booleans(),
)
def test_no_row_is_lost_or_comes_twice_however_often_a_query_looks_again(
    seed: int,
    metric: Metric,
    top_k: int,
    probes: int,
    pool: int,
    precision: str,
    cap: int,
    patience: float,
    reach: float,
    margin: float,
    looks: int,
    direct: bool,
    resident: bool,
) -> None:
    world = World(64, metric, seed=seed)
    plan = world.plan(
        top_k,
        probes,
        precision=precision,
        pool=pool * top_k,
        fp32_cap=cap,
        patience=patience,
        reach=np.full(4, reach, np.float32),
        margin=margin,
        widen=2,
        looks=looks,
        direct=direct,
    )
    field, searcher = world.field(resident), Searcher(64)
    for q in world.queries[::5]:
        ids, distances, parts, rows = answer(world, field, plan, q, searcher)
        found = set(zip(parts.tolist(), rows.tolist(), strict=True))
        assert len(found) == len(ids) == min(top_k, world.alive)
        assert found <= world.distances(q).keys(), "a dead row"
        assert ids.tolist() == world.ids(parts, rows)
        assert (np.diff(distances) >= 0).all() or precision == "fp32"
        assert searcher.counts().looks <= looks
        for part in world.parts:
            assert searcher.probed()[part.number] <= max(1, part.k)


def test_a_pool_that_is_widened_to_everything_is_one_that_had_room_at_first() -> None:
    world = World(64, "l2")
    field, searcher = world.field(), Searcher(64)
    whole = world.plan(10, precision="int8")
    small = world.plan(10, precision="int8", pool=10, margin=1e9, widen=2, looks=40)
    for q in world.queries:
        assert same(answer(world, field, small, q, searcher), answer(world, field, whole, q))
        assert searcher.counts().looks > 1


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("limit", [2, 10_000])
@pytest.mark.parametrize("reach", [0.0, 1e30])
@pytest.mark.parametrize("probes", [0, 1, 2])
def test_a_second_look_goes_no_farther_than_its_limit_nor_than_there_are_lists(
    limit: int, reach: float, probes: int, direct: bool
) -> None:
    world = World(64, "l2")
    more = {"limits": np.full(4, limit, np.int32), "reach": np.full(4, reach, np.float32)}
    plan = world.plan(10, probes, precision="int8", patience=1e30, looks=6, direct=direct, **more)
    for q in world.queries:
        searcher = Searcher(64)
        answer(world, world.field(), plan, q, searcher)
        for part in world.parts:
            # Without any, eight are scanned for the answer to be full.
            assert searcher.probed()[part.number] <= max(1, min(part.k, max(limit, 8 * (probes == 0))))


@pytest.mark.parametrize("distant", [False, True])
def test_a_query_in_a_hole_scans_beyond_its_limit(distant: bool) -> None:
    world = World(64, "l2")
    field, searcher = world.field(), Searcher(64)
    more = {"limits": np.full(4, 3, np.int32), "reach": np.full(4, 1e30, np.float32)}
    more["distant"] = np.full(4, distant, np.uint8)
    for share in (0.0, 1e-9, 2.0):  # none can lack so much, or every one does
        plan = world.plan(10, 2, looks=6, hollow=np.full(4, share, np.float32), **more)
        for q in world.queries:
            found = answer(world, field, plan, q, searcher)
            for part in (part for part in world.parts if not part.small):
                wanted = part.k if share > 1.0 else min(part.k, 2 if distant else 3)
                assert searcher.probed()[part.number] == wanted
            if share > 1.0:
                assert same(found, answer(world, field, world.plan(10), q))


@pytest.mark.parametrize("dead", [0.2, 0.6])
def test_what_makes_a_hole_is_how_many_rows_of_the_planned_lists_are_dead(dead: float) -> None:
    world = World(64, "l2")
    world.parts = [
        world.part(number, [40, 20, 33, 64, 31, 50, 44, 29], number, dead=dead) for number in (1, 2)
    ]
    field, searcher = world.field(), Searcher(64)
    more = {"limits": np.full(2, 4, np.int32), "reach": np.full(2, 1e30, np.float32)}
    plan = world.plan(1, 4, looks=6, hollow=np.full(2, 0.6, np.float32), **more)
    for q in world.queries:
        answer(world, field, plan, q, searcher)
        assert set(searcher.probed().values()) == {8 if dead > 0.4 else 4}


@pytest.mark.parametrize("distant", [False, True])
def test_a_query_from_elsewhere_scans_beyond_its_limit(distant: bool) -> None:
    world = World(64, "l2")
    field, searcher = world.field(), Searcher(64)
    more = {"limits": np.full(4, 3, np.int32), "reach": np.full(4, 1e30, np.float32)}
    more["distant"] = np.full(4, distant, np.uint8)
    listed = [part for part in world.parts if not part.small]
    for familiar, cap in ((0.0, 1_000), (1e30, 1_000), (1e-9, 1_000), (1e-9, 5)):  # 0: it is not known
        strays = familiar == 1e-9
        plan = world.plan(10, 1, looks=6, familiar=np.full(4, familiar, np.float32), cap=cap, **more)
        for q in world.queries:
            answer(world, field, plan, q, searcher)
            for part in listed:
                # One that has to be fetched takes four plans at once, and no second trip.
                wanted = (4 if distant else part.k) if strays else 1 if distant else 3
                assert searcher.probed()[part.number] == min(part.k, cap, wanted)
                assert searcher.counts().looks == (0 if distant else 1)
                assert searcher.strays(part.number) == (strays and distant)


def test_a_query_that_is_near_to_one_part_is_from_elsewhere_for_none_that_is_fetched() -> None:
    world = World(64, "l2")
    field, searcher = world.field(), Searcher(64)
    listed = [part for part in world.parts if not part.small]
    familiar = np.full(4, 1e-9, np.float32)
    familiar[world.parts.index(listed[-1])] = 1e30
    more = {"familiar": familiar, "distant": np.ones(4, np.uint8)}
    for q in world.queries:
        answer(world, field, world.plan(1, 1, **more), q, searcher)
        assert [searcher.probed()[part.number] for part in listed] == [1] * len(listed)


def test_lists_that_were_chosen_for_a_query_from_elsewhere_are_all_it_scans() -> None:
    world = World(64, "l2")
    field, searcher = world.field(resident=False), Searcher(64)
    more = {"distant": np.ones(4, np.uint8), "familiar": np.full(4, 1e-9, np.float32)}
    missing = searcher.begin(field, world.plan(1, 1, **more), world.queries[0])
    lists = {part.number: min(4, part.k) for part in world.parts if not part.small}
    assert {number: len(chosen) for number, chosen in missing.lists.items()} == lists
    for number in lists:
        searcher.choose(number, np.array([0, 1], np.int32))
    again = searcher.run()
    assert {number: chosen.tolist() for number, chosen in again.lists.items()} == {n: [0, 1] for n in lists}


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("reach", [0.9, 1.0, 1.2, 1.5])
def test_a_query_reaches_for_the_lists_that_are_as_near_as_its_last_hit(reach: float, direct: bool) -> None:
    world = World(64, "l2")
    field, reaches = world.field(), np.full(4, reach, np.float32)
    once = world.plan(5, 1, precision="int8", direct=direct)
    plan = world.plan(5, 1, precision="int8", direct=direct, reach=reaches, looks=1)
    for q in world.queries:
        searcher = Searcher(64)
        _, first, _, _ = answer(world, field, once, q, searcher)
        begun = searcher.probed()
        answer(world, field, plan, q, searcher)
        rows = 0
        for part in world.parts:
            lists = np.arange(1)
            if not part.small:
                table, scores = QueryTable(64), np.empty(part.k, np.float32)
                table.take(q, world.means[part.group], world.rotation.signs)
                lists = ivf.rank_lists(table, part.cells, part.cell_lists, part.codes, part.k, scores)
                near = int(np.argmax(np.append(scores, np.inf) > np.float32(reach) * first[-1]))
                lists = lists[: max(begun[part.number], near)]
                assert searcher.probed()[part.number] == len(lists)
            rows += sum(int(part.live[part.starts[i] : part.starts[i + 1]].sum()) for i in lists)
        assert searcher.counts().scanned == rows


@pytest.mark.parametrize("spared", [0.0, 0.1, 0.3, 1.0])
def test_a_patient_query_goes_by_the_farthest_list_of_the_hits_that_are_not_spared(spared: float) -> None:
    world = World(64, "l2")
    field, searcher = world.field(), Searcher(64)
    once = world.plan(150, 5, precision="int8")
    plan = world.plan(150, 5, precision="int8", patience=2.0, spared=spared, looks=1)
    farther = 0
    for q in world.queries:
        _, _, parts, rows = answer(world, field, once, q, searcher)
        begun = searcher.probed()
        answer(world, field, plan, q, searcher)
        for part in world.parts:
            if part.small:
                continue
            table, scores = QueryTable(64), np.empty(part.k, np.float32)
            table.take(q, world.means[part.group], world.rotation.signs)
            order = ivf.rank_lists(table, part.cells, part.cell_lists, part.codes, part.k, scores)
            lists = np.searchsorted(part.starts, rows[parts == part.number], side="right") - 1
            places = np.sort([int(np.flatnonzero(order == one)[0]) + 1 for one in lists])
            minded = len(places) - int(spared * len(places) + 1e-6)
            wanted = 2 * int(places[minded - 1]) if minded else 0
            assert searcher.probed()[part.number] == max(begun[part.number], min(part.k, wanted))
            farther += wanted > begun[part.number]
    assert (farther > 0) == (spared < 1.0)


def test_rows_that_are_alike_come_in_the_order_of_parts_and_rows() -> None:
    world = World(64, "l2")
    for part in world.parts:
        part.words[:] = 0xFFFFFFFF
        part.live[:] = True
        part.vectors[:] = 0
        part.x[:] = 0
    everything = [(part.number, row) for part in world.parts for row in range(part.n)]
    _, distances, parts, rows = answer(world, world.field(), world.plan(10_000), world.queries[0])
    assert list(zip(parts.tolist(), rows.tolist(), strict=True)) == everything
    assert len(set(distances.tolist())) == 1


def test_a_view_without_live_rows_has_no_hits() -> None:
    world = World(64, "l2")
    for part in world.parts:
        part.words[:] = 0
        part.live[:] = False
    for precision in ("none", "int8", "fp32"):
        assert len(answer(world, world.field(), world.plan(precision=precision), world.queries[0])[0]) == 0
    world.parts = []
    assert len(answer(world, world.field(), world.plan(), world.queries[0])[0]) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 0.0])
@pytest.mark.parametrize("metric", METRICS)
def test_a_query_that_no_door_lets_in_does_no_harm(metric: Metric, value: float) -> None:
    world, searcher = World(64, metric), Searcher(64)
    field, plan = world.field(), world.plan(10, 2, patience=2.5, margin=0.8, looks=6)
    q = np.full(64, value, np.float32)
    _, _, parts, rows = answer(world, field, plan, q, searcher)
    assert len(set(zip(parts.tolist(), rows.tolist(), strict=True))) == len(rows) <= 10
    good = world.queries[0]
    assert same(answer(world, field, plan, good, searcher), answer(world, field, plan, good))


# -- what is not in memory -------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["none", "int8", "fp32"])
def test_what_is_missing_is_asked_for_once_and_all_of_it_at_once(precision: str) -> None:
    world = World(64, "l2")
    field, searcher = world.field(resident=False), Searcher(64)
    plan = world.plan(10, 3, precision=precision, pool=40, patience=2.5, looks=6)
    for q in world.queries:
        missing, trips = searcher.begin(field, plan, q), 0
        asked: list[tuple[str, int, int]] = []
        while missing is not None:
            asked += [("list", number, i) for number, lists in missing.lists.items() for i in lists.tolist()]
            asked += [("small", number, 0) for number in missing.small]
            asked += [
                ("vector", number, row)
                for number, (_, rows) in missing.vectors.items()
                for row in rows.tolist()
            ]
            world.read(searcher, missing)
            missing, trips = searcher.run(), trips + 1
        assert len(asked) == len(set(asked))
        assert trips <= 1 + searcher.counts().looks + (precision == "fp32")
        probed = searcher.probed()
        for part in world.parts:
            mine = [a for a in asked if a[1] == part.number and a[0] != "vector"]
            assert len(mine) == (1 if part.small else probed[part.number])
        assert same(searcher.hits(), answer(world, world.field(), plan, q))


@pytest.mark.parametrize("precision", ["none", "int8", "fp32"])
def test_lists_that_were_chosen_are_scanned_in_place_of_those_planned(precision: str) -> None:
    world = World(64, "l2")
    field, searcher = world.field(resident=False), Searcher(64)
    plan = world.plan(10, 2, precision=precision, pool=40)
    part = next(part for part in world.parts if not part.small)
    for q in world.queries:
        missing = searcher.begin(field, plan, q)
        assert missing is not None
        planned = missing.lists[part.number]
        ranked = searcher.rank(part.number, part.k)
        assert ranked[: len(planned)].tolist() == planned.tolist()
        assert sorted(ranked.tolist()) == list(range(part.k))
        unchanged = searcher.run()
        assert unchanged is not None
        assert unchanged.lists[part.number].tolist() == planned.tolist()
        chosen = np.sort(np.concatenate([ranked[:2], ranked[4:7]]))
        searcher.choose(part.number, chosen)
        missing = searcher.run()
        assert missing is not None
        assert missing.lists[part.number].tolist() == chosen.tolist()
        while missing is not None:
            world.read(searcher, missing)
            missing = searcher.run()
        assert searcher.probed()[part.number] == len(chosen)
        # No hit lies in another list.
        found = searcher.hits()[2:]
        rows = found[1][found[0] == part.number]
        assert np.isin(np.searchsorted(part.starts, rows, side="right") - 1, chosen).all()


def test_lists_are_chosen_before_any_is_scanned_and_once_each() -> None:
    world = World(64, "l2")
    field, searcher = world.field(resident=False), Searcher(64)
    part = next(part for part in world.parts if not part.small)
    small = next(part for part in world.parts if part.small)
    plan = world.plan(10, 2, precision="int8", pool=40)
    missing = searcher.begin(field, plan, world.queries[0])
    for wrong in ([0, 0], [1, 0], [-1], [part.k]):
        with pytest.raises(ValueError, match="ascending numbers"):
            searcher.choose(part.number, np.array(wrong, np.int32))
    with pytest.raises(ValueError, match="no lists to be ranked"):
        searcher.rank(small.number, 3)
    with pytest.raises(ValueError, match="no lists to be chosen"):
        searcher.choose(small.number, np.array([0], np.int32))
    while missing is not None:
        world.read(searcher, missing)
        missing = searcher.run()
    with pytest.raises(ValueError, match="some were scanned"):
        searcher.rank(part.number, 3)
    with pytest.raises(ValueError, match="some were scanned"):
        searcher.choose(part.number, np.array([0], np.int32))


def test_half_of_what_is_missing_leaves_the_other_half_missing() -> None:
    world = World(64, "l2")
    field, searcher, q = world.field(resident=False), Searcher(64), world.queries[0]
    missing = searcher.begin(field, world.plan(precision="int8"), q)
    assert missing is not None
    world.read(searcher, Missing({0: missing.lists[0][:5]}, missing.small[:1], {}))
    rest = searcher.run()
    assert rest is not None
    assert rest.lists[0].tolist() == missing.lists[0][5:].tolist()
    assert rest.lists[3].tolist() == missing.lists[3].tolist()
    assert rest.small == missing.small[1:]
    world.read(searcher, rest)
    assert searcher.run() is None
    assert same(searcher.hits(), answer(world, world.field(), world.plan(precision="int8"), q))


def test_a_resident_field_is_told_where_its_records_lie() -> None:
    world = World(64, "l2")
    field = Field(64, "l2", world.rotation.signs, world.means, PAGE, True)
    known = {part.number: np.zeros(len(part.sizes), np.uint64) for part in world.parts}
    pages = {part.number: np.zeros_like(part.pages) for part in world.parts}
    for part in world.parts:
        part.pages = pages[part.number]
        if part.small:
            field.add_small(part.number, part.group, part.words, part.n, part.dtype, part.id_base)
        else:
            part.add_to(field, True, known[part.number])
    searcher, plan, q = Searcher(64), world.plan(10, 2), world.queries[0]
    missing = searcher.begin(field, plan, q)
    assert missing is not None
    assert missing.small == [2, 7]
    for part in world.parts:
        if part.small:
            field.place_small(part.number, int(part.addresses[0]), part.where)
        else:
            lists = missing.lists[part.number]
            known[part.number][lists] = part.addresses[lists]
    missing = searcher.run()
    assert missing is not None
    assert not missing.lists
    assert not missing.small
    assert missing.vectors
    world.read(searcher, missing)
    assert searcher.run() is None
    wanted = answer(world, world.field(), plan, q)
    assert same(searcher.hits(), wanted)
    for number in pages:
        pages[number][:] = 1
    assert searcher.begin(field, plan, q) is None, "what was read once stays where it is"
    assert same(searcher.hits(), wanted)


@pytest.mark.parametrize("precision", ["none", "int8", "fp32"])
def test_to_go_on_with_a_query_that_is_answered_changes_nothing(precision: str) -> None:
    world = World(64, "l2")
    for resident in (True, False):
        field, searcher = world.field(resident), Searcher(64)
        plan = world.plan(10, 2, precision=precision, patience=2.5, margin=0.8, looks=6)
        for q in world.queries:
            wanted, counts = answer(world, field, plan, q, searcher), searcher.counts()
            assert searcher.run() is None
            assert same(searcher.hits(), wanted)
            assert searcher.counts() == counts


def test_what_a_query_was_given_is_kept_no_longer_than_that() -> None:
    world = World(64, "l2")
    field, searcher, plan = world.field(resident=False), Searcher(64), world.plan(10, 2)

    class Kept:
        pass

    alive = weakref.WeakSet[Kept]()
    known = {part.number: part for part in world.parts}
    for q in world.queries:
        missing = searcher.begin(field, plan, q)
        assert len(alive) == 0
        while missing is not None:
            for number, lists in missing.lists.items():
                alive.add(kept := Kept())
                searcher.give_lists(number, lists, known[number].addresses[lists], kept)
            for number in missing.small:
                alive.add(kept := Kept())
                searcher.give_small(number, int(known[number].addresses[0]), known[number].where, kept)
            for number, (places, rows) in missing.vectors.items():
                alive.add(kept := Kept())
                searcher.give_vectors(places, known[number].vector_addresses(rows), kept)
            del kept
            assert 0 < len(alive) <= 3 * len(world.parts)
            missing = searcher.run()


# -- reuse -----------------------------------------------------------------------------------


def test_one_searcher_serves_fields_and_plans_of_any_shape() -> None:
    searcher, worlds = Searcher(64), [World(dim, metric) for metric in METRICS for dim in (64, 3)]
    worlds[1].parts = worlds[1].parts[:1]
    worlds[2].parts = worlds[2].parts[1:2]
    worlds[4].parts = [worlds[4].part(i, [5] * (i + 1), i) for i in range(12)]
    rng = np.random.default_rng(0)
    for _ in range(120):
        world = worlds[rng.integers(len(worlds))]
        top_k = int(rng.choice([1, 10, 300]))
        plan = world.plan(
            top_k,
            int(rng.integers(0, 14)),
            precision=str(rng.choice(["none", "int8", "fp32"])),
            pool=top_k * int(rng.integers(1, 5)),
            patience=2.5,
            margin=0.8,
            looks=int(rng.integers(0, 4)),
        )
        q, field = world.queries[rng.integers(len(world.queries))], world.field(bool(rng.integers(2)))
        if rng.random() < 0.3 and not field.resident:
            searcher.begin(field, plan, q)  # and never finished
        assert same(answer(world, field, plan, q, searcher), answer(world, field, plan, q))


def test_threads_share_a_field() -> None:
    world = World(64, "l2")
    field, plan = world.field(), world.plan(10, 3, patience=2.5, margin=0.8, looks=6, pool=30)
    wanted = [answer(world, field, plan, q) for q in world.queries]
    wrong: list[int] = []

    def work() -> None:
        searcher = Searcher(64)
        for _ in range(40):
            for i, q in enumerate(world.queries):
                if not same(answer(world, field, plan, q, searcher), wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- the door --------------------------------------------------------------------------------


def test_a_field_of_shapes_that_do_not_agree_is_refused() -> None:
    world = World(64, "l2")
    signs, means = world.rotation.signs, world.means
    Field(64, "l2", signs, means, PAGE, True)
    for arguments in (
        (65, "l2", signs, means, PAGE, True),
        (0, "l2", signs, means, PAGE, True),
        (64, "euclid", signs, means, PAGE, True),
        (64, "l2", signs[:0], means, PAGE, True),
        (64, "l2", signs, [np.zeros(63, np.float32)], PAGE, True),
        (64, "l2", signs, [np.zeros(64, np.float64)], PAGE, True),
        (64, "l2", signs, means, 0, True),
    ):
        with pytest.raises(ValueError):
            Field(*arguments)


def coded(part: Part, **changed: Any) -> dict[str, Any]:
    return {
        "number": part.number,
        "group": part.group,
        "words": part.words,
        "cells": part.cells,
        "cell_lists": part.cell_lists,
        "codes": part.codes,
        "first_rows": part.starts[:-1],
        "first_blocks": part.first_blocks,
        "addresses": part.addresses,
        "n": part.n,
        "dtype": part.dtype,
        "vectors": part.where,
        "pages": part.pages,
        **changed,
    }


def test_a_part_of_shapes_that_do_not_agree_is_refused() -> None:
    world = World(64, "l2")
    part = world.parts[0]
    field = Field(64, "l2", world.rotation.signs, world.means, PAGE, True)
    beyond = part.first_blocks.copy()
    beyond[-1] = len(part.words) + 1
    for changed in (
        {"group": 2},
        {"group": -1},
        {"cells": part.cells[:, :32].copy()},
        {"cell_lists": part.cell_lists[:-1]},
        {"cell_lists": np.zeros_like(part.cell_lists)},
        {"codes": part.codes[:-1]},
        {"first_rows": part.starts[:-2]},
        {"first_blocks": part.first_blocks[:-1]},
        {"first_blocks": beyond},
        {"first_blocks": -1 - part.first_blocks},
        {"addresses": part.addresses[:-1]},
        {"addresses": None},
        {"n": 0},
        {"n": -1},
        {"dtype": "f8"},
        {"pages": None},
        {"pages": part.pages[:-1]},
    ):
        with pytest.raises(ValueError):
            field.add_coded(**coded(part, **changed))
    with pytest.raises(ValueError, match="words"):
        field.add_small(1, 0, np.zeros(1, np.uint32), 33, "f4")
    with pytest.raises(ValueError, match="at least one row"):
        field.add_small(1, 0, np.zeros(1, np.uint32), 0, "f4")
    with pytest.raises(ValueError, match="no vectors"):
        field.add_coded(**coded(part, dtype=None, pages=None))
    field.add_coded(**coded(part, dtype=None, pages=None, vectors=0))
    for number in (0, -1):
        with pytest.raises(ValueError, match="ascend"):
            field.add_small(number, 0, np.zeros(1, np.uint32), 1, "f4")
    for number in (0, 1):
        with pytest.raises(ValueError, match="no small part"):
            field.place_small(number, 64, 64)
    assert len(field) == 1


def test_a_field_takes_no_part_once_it_is_searched() -> None:
    """A searcher that is under way looks at its parts where they lie."""
    world = World(64, "l2")
    field = world.field(resident=False)
    searcher = Searcher(64)
    assert searcher.begin(field, world.plan(), world.queries[0]) is not None
    with pytest.raises(ValueError, match="searched"):
        field.add_small(99, 0, np.zeros(1, np.uint32), 1, "f4")


def test_more_of_a_record_is_asked_for_where_codes_are_too_many_for_a_cache() -> None:
    """A block of 64 dimensions has 640 bytes, and 12 MiB are 19,660 of them."""
    world = World(64, "l2")
    part = world.parts[0]

    def ahead(*blocks: int) -> int:
        field = Field(64, "l2", world.rotation.signs, world.means, PAGE, True)
        for number, n in enumerate(blocks):
            field.add_coded(**coded(part, number=number, words=np.full(n, 0xFFFFFFFF, np.uint32)))
        words = np.zeros(blocks[-1], np.uint32)
        assert field.narrowed([(len(blocks) - 1, words, np.ones(part.k, np.uint8))]).ahead == (
            field.ahead if len(blocks) == 1 else 512
        )
        return field.ahead

    assert ahead(19_660) == 512
    assert ahead(19_661) == 64 + 64 + 640  # header, centroid, block
    assert ahead(10_000, 9_660) == 512
    assert ahead(10_000, 9_661) == 64 + 64 + 640


def test_a_plan_out_of_range_is_refused() -> None:
    Plan(**PLAN)
    for changed in (
        {"top_k": 0},
        {"pool": 0},
        {"most": 0},
        {"alive": -1},
        {"fp32_cap": -1},
        {"widen": 1},
        {"looks": -1},
        {"spared": -0.1},
        {"spared": 1.1},
        {"spared": np.nan},
        {"precision": "fp16"},
        {"top_k": ivf.MAX_CAPACITY + 1, "pool": ivf.MAX_CAPACITY + 1},
        {"most": ivf.MAX_CAPACITY + 1},
        {"widen": 1 << 62},
        {"probes": np.zeros(4, np.int64)},
        {"limits": np.zeros((4, 1), np.int32)},
        {"reach": np.zeros(4, np.float64)},
        {"hollow": np.zeros(4, np.float64)},
        {"distant": np.zeros(4, np.int8)},
        {"familiar": np.zeros(4, np.float64)},
        {"cap": 0},
        {"width": -1.0},
        {"width": np.nan},
        {"cap": ivf.MAX_CAPACITY + 1},
    ):
        with pytest.raises(ValueError):
            Plan(**{**PLAN, **changed})


def test_a_query_that_does_not_fit_is_refused_and_harms_nothing() -> None:
    world = World(64, "l2")
    field, plan, q, searcher = world.field(), world.plan(), world.queries[0], Searcher(64)
    wanted = answer(world, field, plan, q, searcher)
    for arguments in (
        (field, plan, q[:-1]),
        (field, world.plan(limits=np.zeros(3, np.int32)), q),
        (field, world.plan(reach=np.zeros(3, np.float32)), q),
        (field, world.plan(hollow=np.zeros(3, np.float32)), q),
        (field, world.plan(distant=np.zeros(3, np.uint8)), q),
        (field, world.plan(familiar=np.zeros(3, np.float32)), q),
        (field, Plan(**{**PLAN, "probes": np.zeros(5, np.int32)}), q),
        (World(100, "l2").field(), plan, np.zeros(100, np.float32)),
        (field, plan, q.astype(np.float64)),
        (field, plan, world.queries),
    ):
        with pytest.raises(ValueError):
            searcher.begin(*arguments)
    assert same(searcher.hits(), wanted)
    assert same(answer(world, field, plan, q, searcher), wanted)


PLAN: dict[str, Any] = {
    "top_k": 1,
    "pool": 1,
    "most": 1,
    "alive": 1,
    "precision": "none",
    "fp32_cap": 0,
    "probes": np.zeros(0, np.int32),
    "limits": np.zeros(4, np.int32),
    "reach": np.zeros(4, np.float32),
    "patience": 0.0,
    "margin": 0.0,
    "widen": 2,
    "looks": 0,
}


def test_a_searcher_without_a_query_has_nothing_to_go_on_with() -> None:
    searcher = Searcher(64)
    with pytest.raises(ValueError, match="no query"):
        searcher.run()
    with pytest.raises(ValueError, match="no query"):
        searcher.hits()
    assert searcher.probed() == {}


def test_a_searcher_that_was_released_keeps_no_field_alive() -> None:
    world, searcher = World(64, "l2"), Searcher(64)
    field = world.field()
    before = sys.getrefcount(field)
    wanted = answer(world, field, world.plan(), world.queries[0], searcher)
    assert sys.getrefcount(field) == before + 1
    searcher.release()
    assert sys.getrefcount(field) == before
    assert searcher.probed() == {}
    with pytest.raises(ValueError, match="no query"):
        searcher.hits()
    assert same(answer(world, field, world.plan(), world.queries[0], searcher), wanted)


def test_what_nobody_asked_for_is_refused() -> None:
    world, searcher = World(64, "l2"), Searcher(64)
    one, nothing = np.zeros(1, np.int32), np.zeros(0, np.uint64)
    with pytest.raises(ValueError):
        searcher.give_lists(0, one, one.astype(np.uint64), None)
    assert searcher.begin(world.field(resident=False), world.plan(), world.queries[0]) is not None
    for number, lists, addresses in (
        (1, one, np.zeros(1, np.uint64)),
        (0, one, nothing),
        (0, one - 1, np.zeros(1, np.uint64)),
        (0, one + 13, np.zeros(1, np.uint64)),
        (2, one, np.zeros(1, np.uint64)),
    ):
        with pytest.raises(ValueError):
            searcher.give_lists(number, lists, addresses, None)
    with pytest.raises(ValueError):
        searcher.give_small(1, 64, 64, None)
    for place in (-1, 0):
        with pytest.raises(ValueError):
            searcher.give_vectors(np.array([place]), np.zeros(1, np.uint64), None)
    with pytest.raises(ValueError):
        searcher.give_vectors(np.array([0]), nothing, None)


def test_a_record_of_another_shape_is_refused() -> None:
    world = World(64, "l2")
    field, searcher = world.field(resident=False), Searcher(64)
    wrong = np.zeros(8192, np.uint8)
    for number in (0, 3):
        missing = searcher.begin(field, world.plan(), world.queries[0])
        assert missing is not None
        world.read(searcher, missing)
        addresses = np.array([wrong.ctypes.data], np.uint64)
        searcher.give_lists(number, missing.lists[number][:1], addresses, wrong)
        with pytest.raises(ValueError, match="no blocks of 64"):
            searcher.run()
    good = world.queries[1]
    assert same(answer(world, field, world.plan(), good, searcher), answer(world, field, world.plan(), good))


def test_the_stages_are_timed_where_that_is_asked_for() -> None:
    world, searcher = World(64, "l2"), Searcher(64)
    assert searcher.begin(world.field(), world.plan(), world.queries[0], True) is None
    times = searcher.times()
    assert list(times) == ["prepare", "rank", "scan", "rerank", "exact"]
    assert all(0.0 <= seconds < 60.0 for seconds in times.values())
    assert rabitq.simd() in rabitq.simd_available()
