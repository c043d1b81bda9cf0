from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.ext.helpers import VARIANTS, Part, variant
from vecstore.ext import ivf, rabitq
from vecstore.ext.ivf import LOOKED_AT_A_LIST, LOOKED_AT_LEAST, LOOKED_AT_SHARE, Pool, rank_lists
from vecstore.ext.rabitq import QueryTable, encode_rabitq, score_with_rabitq

ALL = 0xFFFFFFFF


def table_of(z: NDArray[np.float32], q_shift: float = 0.0) -> QueryTable:
    table = QueryTable(len(z))
    table.prepare(z, q_shift)
    return table


def canonical_sum(terms: NDArray[np.float32]) -> np.float32:
    """The order of ext/simd/kernels.h."""
    lanes = np.zeros(32, np.float32)
    for start in range(0, len(terms), 32):
        some = terms[start : start + 32]
        lanes[: len(some)] += some
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = lanes[:half] + lanes[half:]
    return lanes[0]


def exact(q: NDArray[np.float32], o: NDArray[np.float32], metric: str) -> np.float32:
    two = np.float32(2)
    o = o.astype(np.float32)
    if metric == "l2":
        return canonical_sum((q - o) * (q - o))
    inner = canonical_sum(q * o)
    if metric == "dot":
        return -two * inner
    squared = canonical_sum(o * o)
    if not squared > 0:
        return two
    found = two - (two * inner) / np.sqrt(squared)
    if found >= np.float32(0.01):
        return found
    found, apart = np.float32(0), q - o / np.sqrt(squared)
    for start in range(0, len(q), 256):
        found += canonical_sum(apart[start : start + 256] ** 2)
    return found


def near_rows(q: NDArray[np.float32], *far: float) -> NDArray[np.float32]:
    """A multiple of the query each, moved by so much of its length."""
    moved = np.random.default_rng(1).standard_normal((len(far), len(q)))
    moved *= np.linalg.norm(q) / np.linalg.norm(moved, axis=1, keepdims=True)
    return np.asarray(3 * (q + np.array(far)[:, None] * moved), dtype=np.float32)


def scan_vectors(
    q: NDArray[np.float32], rows: NDArray[np.float32 | np.float16], metric: str, capacity: int = 1000
) -> ivf.Entries:
    pool = Pool(capacity)
    words = np.full(-(-len(rows) // 32), ALL, np.uint32)
    dtype = "f2" if rows.dtype == np.float16 else "f4"
    ivf.scan_vectors(q, pool, 3, rows.ctypes.data, dtype, len(rows), metric, words)  # type: ignore[arg-type]
    return pool.entries()


# --- exact scans ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rabitq.simd_available())
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_scans_add_in_the_canonical_order(name: str, dtype: type) -> None:
    for dim in (*range(1, 301), 511, 768, 1000, 4095):
        rng = np.random.default_rng(dim)
        q = rng.standard_normal(dim).astype(np.float32)
        q /= np.linalg.norm(q)
        rows = rng.standard_normal((7, dim)).astype(dtype)
        rows[1] *= dtype(1e-6)  # denormal as float16
        rows[2] = 0
        rows[3:] = near_rows(q, 0.0, 1e-3, 0.09, 0.2)
        with variant(name):
            for metric in ("l2", "dot", "cosine"):
                entries = scan_vectors(q, rows, metric)
                wanted = np.array([exact(q, o, metric) for o in rows])
                assert np.array_equal(entries.estimate, wanted[entries.row]), (dim, metric)


@pytest.mark.parametrize("name", VARIANTS)
def test_extreme_values_scan_alike(name: str) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((9, 77)).astype(np.float32)
    rows *= np.array([1e-45, 1e-38, 1e-30, 1e-20, 0, 1e10, 1e18, 1e30, -1], dtype=np.float32)[:, None]
    for q in (rows[5], rows[0], rows[8]):
        for metric in ("l2", "dot", "cosine"):
            seen = []
            for which in ("serial", name):
                with variant(which):
                    seen.append(scan_vectors(q, rows, metric))
            for one, other in zip(*seen, strict=True):
                assert np.array_equal(one, other, equal_nan=True)


def test_every_half_float_is_converted_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)]
    rows = np.ascontiguousarray(finite[:, None])
    for name in rabitq.simd_available():
        with variant(name):
            entries = scan_vectors(np.array([-0.5], np.float32), rows, "dot", len(rows))
            assert np.array_equal(entries.estimate, finite.astype(np.float32)[entries.row])


def test_exact_entries_say_where_they_are() -> None:
    rows = np.arange(40, dtype=np.float32)[:, None]
    entries = scan_vectors(np.array([20.0], np.float32), rows, "l2", 3)
    assert entries.row.tolist() == [20, 19, 21]
    assert entries.slot.tolist() == [20, 19, 21]
    assert entries.part.tolist() == [3, 3, 3]
    assert not entries.bound.any()
    assert not entries.record.any()


# --- the pool ------------------------------------------------------------------------------------


@given(
    values=st.lists(
        st.one_of(
            st.integers(-3, 3).map(float),
            # Half of it is to be exact.
            st.floats(width=32, allow_nan=False, allow_infinity=False).filter(
                lambda v: v == 0 or abs(v) > 1e-37
            ),
        ),
        max_size=200,
    ),
    capacity=st.integers(1, 70),
    seed=st.integers(0, 1000),
)
def test_the_pool_keeps_the_least_by_estimate_part_and_row(
    values: list[float], capacity: int, seed: int
) -> None:
    """One-dimensional rows q * o with q = -1/2 give any wanted estimate; parts come in any order."""
    rng = np.random.default_rng(seed)
    pool = Pool(capacity)
    q = np.array([-0.5], np.float32)
    pieces = np.array_split(np.array(values, dtype=np.float32), 3)
    oracle = []
    for part in rng.permutation(3).tolist():
        rows = pieces[part]
        words = np.full(-(-len(rows) // 32), ALL, np.uint32)
        ivf.scan_vectors(q, pool, part, rows.ctypes.data, "f4", len(rows), "dot", words)
        oracle += [(float(np.float32(v)) + 0.0, part, row) for row, v in enumerate(rows)]
        kept = sorted(oracle)[:capacity]
        assert len(pool) == len(kept)
        assert pool.threshold >= kept[-1][0] if kept else pool.threshold == np.inf
    entries = pool.entries()
    got = zip(entries.estimate.tolist(), entries.part.tolist(), entries.row.tolist(), strict=True)
    assert list(got) == sorted(oracle)[:capacity]


@given(
    seed=st.integers(0, 10_000),
    n=st.sampled_from([0, 1, 31, 500, 600, 2_000, 9_000]),
    capacity=st.sampled_from([1, 2, 33, 128, 700, 3_000, 20_000]),
    values=st.sampled_from(["spread", "ties", "alike", "narrow", "huge", "falling", "rising", "infinite"]),
)
def test_a_pool_that_is_shrunk_over_and_over_keeps_the_least(
    seed: int, n: int, capacity: int, values: str
) -> None:
    """More than 2 * capacity + 512 candidates, and bins that tell little or nothing of them."""
    rng = np.random.default_rng(seed)
    wanted = {
        "spread": lambda: rng.standard_normal(n),
        "ties": lambda: rng.integers(0, 5, n),
        "alike": lambda: np.full(n, 7.0),
        "narrow": lambda: (
            np.nextafter(np.float32(1e6), np.float32(np.inf), dtype=np.float32) * rng.integers(1, 3, n)
        ),
        "huge": lambda: np.where(rng.random(n) < 0.01, 3e38, rng.random(n)) * rng.choice([-1, 1], n),
        "falling": lambda: -np.arange(n),
        "rising": lambda: np.arange(n),
        "infinite": lambda: rng.choice([-np.inf, np.inf, 0.0, 1.0, np.nan], n),
    }[values]()
    rows = np.asarray(wanted, np.float32)
    pool, q, at = Pool(capacity), np.array([-0.5], np.float32), 0
    for part, piece in enumerate(np.array_split(rows, 3)):
        words = np.full(-(-len(piece) // 32), ALL, np.uint32)
        ivf.scan_vectors(q, pool, part, piece.ctypes.data, "f4", len(piece), "dot", words)
        at += len(piece)
        seen = np.sort(rows[:at][~np.isnan(rows[:at])])[:capacity]
        assert len(pool) == len(seen)
        assert pool.threshold >= seen[-1] if len(seen) == capacity else pool.threshold == np.inf
    oracle = [
        (float(value) + 0.0, part, row)
        for part, piece in enumerate(np.array_split(rows, 3))
        for row, value in enumerate(piece)
        if not np.isnan(value)
    ]
    entries = pool.entries()
    got = zip(entries.estimate.tolist(), entries.part.tolist(), entries.row.tolist(), strict=True)
    assert list(got) == sorted(oracle)[:capacity]


def test_a_large_pool_full_of_ties_is_sorted() -> None:
    rows = np.repeat(np.float32([2, 1, 0]), 5000)
    entries = scan_vectors(np.array([-0.5], np.float32), rows[:, None], "dot", 12_000)
    assert entries.row.tolist() == [*range(10_000, 15_000), *range(5_000, 10_000), *range(2_000)]


def test_reset_empties_the_pool() -> None:
    pool = Pool(2)
    rows = np.zeros((5, 1), np.float32)
    for capacity in (2, 100, 1):
        pool.reset(capacity)
        assert (len(pool), pool.threshold, pool.capacity) == (0, np.inf, capacity)
        ivf.scan_vectors(rows[0], pool, 0, rows.ctypes.data, "f4", 5, "l2", np.array([ALL], np.uint32))
        assert len(pool) == min(5, capacity)


# --- lists ---------------------------------------------------------------------------------------


@pytest.fixture
def part() -> Part:
    return Part(np.random.default_rng(4), 192, [1, 31, 32, 33, 0, 64, 70, 5])


@pytest.fixture
def z(part: Part) -> NDArray[np.float32]:
    return part.z[40] + np.random.default_rng(5).standard_normal(part.dim).astype(np.float32)


def by_list(part: Part, z: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and bounds of every row by score_with_rabitq, list by list."""
    estimates, bounds = [], []
    for i in range(len(part.sizes)):
        g = float(((z.astype(np.float64) - part.centroids[i]) ** 2).sum())
        estimate, bound = score_with_rabitq(table_of(z), part.area(i, 0).copy(), part.sizes[i], g, np.sqrt(g))
        estimates.append(estimate)
        bounds.append(bound)
    return np.concatenate(estimates), np.concatenate(bounds)


def test_a_scan_finds_what_the_lists_say(part: Part, z: NDArray[np.float32]) -> None:
    pool = Pool(1000)
    assert part.scan(table_of(z), pool, part=6) == part.n == len(pool)
    entries = pool.entries()
    estimate, bound = by_list(part, z)
    assert entries.estimate == pytest.approx(estimate[entries.row], rel=1e-5)
    assert entries.bound == pytest.approx(bound[entries.row], rel=1e-5)
    assert (np.diff(entries.estimate) >= 0).all()
    assert sorted(entries.row.tolist()) == list(range(part.n))
    lists = part.list_of[entries.row]
    assert np.array_equal(entries.slot, entries.row - part.starts[lists])
    assert np.array_equal(entries.record, part.addresses[lists])
    assert (entries.part == 6).all()


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dim", [64, 128, 320, 448, 1024, 4096])
def test_every_variant_scans_alike(name: str, dim: int) -> None:
    part = Part(np.random.default_rng(dim), dim, [*range(0, 70, 3), 32, 64])
    z = part.z[7] * np.float32(1.5)
    for capacity in (1, 20, 2000):
        seen = []
        for which in ("serial", name):
            with variant(which):
                pool = Pool(capacity)
                scanned = part.scan(table_of(z), pool)
                seen.append((scanned, pool.threshold, [column.tobytes() for column in pool.entries()]))
        assert seen[0] == seen[1]


def test_a_small_pool_is_the_head_of_a_large_one_whatever_the_order(
    part: Part, z: NDArray[np.float32]
) -> None:
    whole = Pool(1000)
    part.scan(table_of(z), whole)
    for capacity in (1, 2, 10, 100, part.n - 1, part.n):
        for seed in range(3):
            pool = Pool(capacity)
            lists = np.random.default_rng(seed).permutation(len(part.sizes))
            assert part.scan(table_of(z), pool, lists) == part.n
            for got, wanted in zip(pool.entries(), whole.entries(), strict=True):
                assert np.array_equal(got, wanted[:capacity])


@given(seed=st.integers(0, 10_000), share=st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
def test_masked_slots_never_appear(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    part = Part(rng, 64, rng.integers(0, 70, size=6).tolist())
    allowed = rng.random(part.n) < share
    pool = Pool(1000)
    scanned = part.scan(table_of(rng.standard_normal(64).astype(np.float32)), pool, words=part.words(allowed))
    assert scanned == allowed.sum()
    assert sorted(pool.entries().row.tolist()) == np.flatnonzero(allowed).tolist()


def test_nothing_allowed_is_nothing_scanned(part: Part, z: NDArray[np.float32]) -> None:
    pool = Pool(9)
    assert part.scan(table_of(z), pool, words=np.zeros(part.blocks, np.uint32)) == len(pool) == 0


def test_bounds_may_be_left_out(part: Part, z: NDArray[np.float32]) -> None:
    pool = Pool(9)
    part.scan(table_of(z), pool, skip_bound=True)
    assert (pool.entries().bound == np.inf).all()


def test_the_dot_product_has_its_shift_in_the_codes() -> None:
    rng = np.random.default_rng(8)
    sizes = [40, 60]
    z = np.random.default_rng(9).standard_normal(128).astype(np.float32)
    shift = Part(np.random.default_rng(8), 128, sizes).z
    part = Part(rng, 128, sizes, shift=(shift**2).sum(1))
    table, pool = table_of(z, float((z**2).sum())), Pool(100)
    part.scan(table, pool)
    entries = pool.entries()
    assert (np.abs(entries.estimate + 2 * part.z[entries.row] @ z) <= entries.bound).mean() > 0.9
    pool.reset(100)
    words = np.full(2, ALL, np.uint32)
    ivf.scan_int8(table, pool, 0, int(part.addresses[1]), 40, words)
    entries = pool.entries()
    assert entries.estimate == pytest.approx(-2 * part.z[entries.row] @ z, abs=1)


@pytest.mark.parametrize("name", rabitq.simd_available())
def test_int8_distances_are_within_their_rounding(name: str) -> None:
    for dim in (64, 384, 1024):
        part = Part(np.random.default_rng(dim), dim, [70])
        z = part.z[3] + np.float32(0.3)
        pool = Pool(100)
        allowed = np.arange(70) % 3 > 0
        with variant(name):
            scanned = ivf.scan_int8(table_of(z), pool, 2, int(part.addresses[0]), 1000, part.words(allowed))
        entries = pool.entries()
        assert scanned == len(pool) == allowed.sum()
        assert sorted((entries.row - 1000).tolist()) == np.flatnonzero(allowed).tolist()
        rows = part.z[entries.slot].astype(np.float64)
        true = ((rows - z) ** 2).sum(1)
        step = np.abs(rows - part.centroids[0]).max(1) / 127
        spread = 2 * step / np.sqrt(12) * np.linalg.norm(z - part.centroids[0])
        assert (np.abs(entries.estimate - true) < 6 * spread + 1e-3).all()
        assert np.abs(entries.estimate - true).max() > 0


# --- ranking of lists ----------------------------------------------------------------------------


class Cells:
    def __init__(self, seed: int, dim: int, sizes: list[int]) -> None:
        rng = np.random.default_rng(seed)
        self.cells = rng.standard_normal((len(sizes), dim)).astype(np.float32)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        noise = rng.standard_normal((len(owner), dim)).astype(np.float32)
        self.centroids = self.cells[owner] + noise * np.float32(0.7)
        self.centroids[: len(owner) // 4] = self.centroids[:1]  # ties, in part
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint32)
        self.blocks = [
            encode_rabitq(self.centroids[a:b], self.cells[c])
            for c, (a, b) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True))
        ]
        self.codes = np.concatenate([*self.blocks, np.empty(0, np.uint8)])
        self.z = rng.standard_normal(dim).astype(np.float32)

    def looked_at(self, n: int) -> NDArray[np.bool_]:
        """bool[K]: lists of the nearest cells that together hold as many as are looked at for n."""
        step = (
            np.maximum(np.abs(self.cells).max(axis=1, keepdims=True), 1e-30) / 127
        )  # cells are ranked as int8
        near = np.argsort(((np.rint(self.cells / step) * step - self.z) ** 2).sum(axis=1), kind="stable")
        sizes = np.diff(self.bounds.astype(np.int64))
        before = np.cumsum(sizes[near]) - sizes[near]
        least = max(LOOKED_AT_LEAST, sizes.sum() // LOOKED_AT_SHARE)
        cells = near[before < LOOKED_AT_A_LIST * n + least]
        return np.isin(np.repeat(np.arange(len(sizes)), sizes), cells)

    def estimates(self) -> NDArray[np.float32]:
        table, out = table_of(self.z), []
        for c, blocks in enumerate(self.blocks):
            g_add = canonical_sum((self.z - self.cells[c]) ** 2)
            n = int(self.bounds[c + 1]) - int(self.bounds[c])
            out.append(score_with_rabitq(table, blocks, n, g_add, 0)[0])
        return np.concatenate(out)


@pytest.mark.parametrize("name", rabitq.simd_available())
@pytest.mark.parametrize("sizes", [[1], [32], [33, 0, 31], [0, 64, 5, 0], [7] * 40, [100, 300, 200]])
def test_lists_rank_by_their_estimates(name: str, sizes: list[int]) -> None:
    with variant(name):
        some = Cells(len(sizes), 128, sizes)
        estimates = some.estimates()
        table = table_of(some.z)
        for n in (0, 1, 2, 10, 48, 49, sum(sizes) // 2, sum(sizes) - 1, sum(sizes), 10_000):
            got = rank_lists(table, some.cells, some.bounds, some.codes, n)
            assert got.dtype == np.int32
            assert len(got) == len(set(got.tolist())) == min(n, len(estimates))
            # But for the rounding of the cells, which their lists share; empty ones had an estimate of 0.
            looked_at = some.looked_at(n)
            here, rest = estimates[got], estimates[looked_at & ~np.isin(np.arange(len(estimates)), got)]
            assert (np.diff(here) >= -1.5).all()
            assert not len(here) or not len(rest) or here.max() <= rest.min() + 1.5
            tied = np.isin(here, here[:1]) & np.isin(np.searchsorted(some.bounds, got, "right"), [1])
            assert (np.diff(got[tied]) > 0).all(), "ties go by number"
            whole = rank_lists(table, some.cells, some.bounds, some.codes, 10_000)
            assert got.tolist() == whole[looked_at[whole]][:n].tolist()


@pytest.mark.parametrize("n", [1, 7, 40, 90, 100])
def test_of_many_lists_those_of_the_nearest_cells_are_ranked(n: int) -> None:
    some = Cells(3, 64, [50] * 60)
    table = table_of(some.z)
    got = rank_lists(table, some.cells, some.bounds, some.codes, n)
    whole = rank_lists(table, some.cells, some.bounds, some.codes, 3_000)
    looked_at = some.looked_at(n)
    assert 0 < looked_at.sum() < 1_000
    assert got.tolist() == whole[looked_at[whole]][:n].tolist()
    assert len(whole) == 3_000


class Clusters(Cells):
    """Cells far from each other, of lists that lie close together: most cells are beyond."""

    def __init__(self, seed: int, dim: int, sizes: list[int], spread: float, apart: float) -> None:
        super().__init__(seed, dim, sizes)
        rng = np.random.default_rng(seed)
        self.cells *= np.float32(apart)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        noise = rng.standard_normal((len(owner), dim)).astype(np.float32)
        self.centroids = self.cells[owner] + noise * np.float32(spread)
        self.blocks = [
            encode_rabitq(self.centroids[a:b], self.cells[c])
            for c, (a, b) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True))
        ]
        self.codes = np.concatenate(self.blocks)
        self.z = self.cells[rng.integers(len(sizes))] + noise[0] * np.float32(spread)


@pytest.mark.parametrize("name", rabitq.simd_available())
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("apart", [0.0, 1.0, 20.0])
def test_cells_that_are_left_out_had_no_list_near_enough(name: str, spread: float, apart: float) -> None:
    """A shift of the query leaves nothing out, and one of 1e-30 changes no estimate."""
    for seed in range(8):
        some = Clusters(seed, 128, [7, 40, 0, 64, 1, 33] * 6, spread, apart)
        k = int(some.bounds[-1])
        for n in (1, 5, 40, k // 2, k - 1, k):
            with variant(name):
                pruned = rank_lists(table_of(some.z), some.cells, some.bounds, some.codes, n)
                whole = rank_lists(table_of(some.z, 1e-30), some.cells, some.bounds, some.codes, n)
            assert len(set(pruned.tolist())) == len(pruned) == n
            if pruned.tolist() == whole.tolist():
                continue
            # What was left out for its cell is farther away than the farthest of the `n` estimates.
            lost = np.setdiff1d(whole, pruned)
            truth = ((some.centroids.astype(np.float64) - some.z) ** 2).sum(1)
            assert truth[lost].min() > some.estimates()[whole].max() * 0.99


@pytest.mark.parametrize("name", VARIANTS)
def test_estimates_that_are_no_numbers_come_last(name: str) -> None:
    with variant(name):
        some = Cells(1, 64, [500])
        for block, slot in ((0, 5), (3, 7), (9, 0)):
            some.codes.reshape(-1, 640)[block, 256:384].view("<f4")[slot] = np.nan
        spoilt = [5, 3 * 32 + 7, 9 * 32]
        got = rank_lists(table_of(some.z), some.cells, some.bounds, some.codes, 500)
        assert sorted(got.tolist()) == list(range(500))
        assert got[-3:].tolist() == spoilt
        few = rank_lists(table_of(some.z), some.cells, some.bounds, some.codes, 60)
        assert few.tolist() == got[:60].tolist()


def test_outliers_do_not_spoil_the_ranking() -> None:
    """The histogram's range is then all outlier; infinities leave it no range at all."""
    for value in (1e30, -1e30, np.inf, -np.inf):
        some = Cells(1, 64, [500])
        some.codes.reshape(-1, 640)[3, 256:384].view("<f4")[5] = value
        some.blocks = [some.codes]
        wanted = np.argsort(some.estimates(), kind="stable")
        for n in (1, 60, 400):
            got = rank_lists(table_of(some.z), some.cells, some.bounds, some.codes, n)
            assert np.array_equal(got, wanted[:n])


# --- the door ------------------------------------------------------------------------------------


def test_bad_arguments_are_refused(part: Part, z: NDArray[np.float32]) -> None:
    f4, i8, u4 = np.float32, np.int64, np.uint32
    for capacity in (0, -1, ivf.MAX_CAPACITY + 1):
        with pytest.raises(ValueError):
            Pool(capacity)
    table, pool = table_of(z), Pool(5)
    words = np.full(part.blocks, ALL, u4)
    one = part.addresses[1:2], part.starts[1:2], part.first_blocks[1:2]
    ivf.scan_lists(table, pool, 0, *one, words)
    for arguments in (
        (QueryTable(192), pool, 0, *one, words),
        (table_of(np.zeros(128, f4)), pool, 0, *one, words),
        (table, pool, 0, one[0], np.zeros(2, i8), one[2], words),
        (table, pool, 0, one[0], one[1], np.zeros(0, i8), words),
        (table, pool, 0, one[0], one[1], np.array([-1]), words),
        (table, pool, 0, one[0], one[1], np.array([part.blocks]), words),
        (table, pool, 0, np.zeros(1, np.uint64), one[1], one[2], words),
        (table, pool, 0, *one, words.astype(i8)),
    ):
        with pytest.raises(ValueError):
            ivf.scan_lists(*arguments)
    q = np.zeros(192, f4)
    at = part.z.ctypes.data
    for arguments in (
        (q, pool, 0, at, "f8", 1, "l2", words),
        (q, pool, 0, at, "f4", 1, "euclid", words),
        (q, pool, 0, at, "f4", 33, "l2", words[:1]),
        (q, pool, 0, at, "f4", -1, "l2", words),
        (q, pool, 0, 0, "f4", 1, "l2", words),
        (q[:0], pool, 0, at, "f4", 1, "l2", words),
    ):
        with pytest.raises(ValueError):
            ivf.scan_vectors(*arguments)  # type: ignore[arg-type]
    bare = Part(np.random.default_rng(0), 192, [40], int8=False)
    for record, some in (
        (0, words),
        (int(bare.addresses[0]), words),
        (int(part.addresses[5]), words[:1]),
    ):
        with pytest.raises(ValueError):
            ivf.scan_int8(table, pool, 0, record, 0, some)
    uncoded = Part(np.random.default_rng(0), 192, [40], codes=False)
    with pytest.raises(ValueError, match="no blocks"):
        uncoded.scan(table, pool)


def test_bad_cells_are_refused() -> None:
    some = Cells(1, 64, [40, 3])
    table = table_of(some.z)
    descending = some.bounds[::-1].copy()
    for cells, bounds, codes, n in (
        (some.cells[:1], some.bounds, some.codes, 1),
        (some.cells[:, :32].copy(), some.bounds, some.codes, 1),
        (some.cells, descending, some.codes, 1),
        (some.cells, some.bounds + np.uint32(1), some.codes, 1),
        (some.cells, np.array([0, 50, 43], np.uint32), some.codes, 1),
        (some.cells, some.bounds, some.codes[:-1], 1),
        (some.cells, some.bounds, some.codes, -1),
    ):
        with pytest.raises(ValueError):
            rank_lists(table, cells, bounds, codes, n)
    with pytest.raises(ValueError, match="not prepared"):
        rank_lists(QueryTable(64), some.cells, some.bounds, some.codes, 1)


def test_no_layout_of_bad_sizes() -> None:
    for n, dim in ((-1, 64), (1, 0), (1, 100)):
        with pytest.raises(ValueError):
            ivf.record_layout(n, dim, True, True)
