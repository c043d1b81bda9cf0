from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.ext.helpers import VARIANTS, padded, variant
from vecstore.ext import rabitq
from vecstore.ext.ivf import rank_lists
from vecstore.ext.rabitq import QueryTable, encode_rabitq, score_with_rabitq

DIMS = [64, 128, 192, 320, 384, 768, 1024, 4096]


def reference(
    rows: NDArray[np.float32], c: NDArray[np.float32], z: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate, bound and true distance by the paper's formulas, in float64."""
    r, dp = rows.astype(np.float64) - c, rows.shape[1]
    signs = np.where(r >= 0, 1.0, -1.0)
    l1, l2 = np.abs(r).sum(1), (r * r).sum(1)
    g = ((z.astype(np.float64) - c) ** 2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        estimate = l2 + g - 2 * np.where(l1 > 0, l2 / l1, 0) * (signs @ (z.astype(np.float64) - c))
        a2 = np.where(l2 > 0, l1 * l1 / (dp * l2), 1.0)
    bound = 2 * np.sqrt(l2 * g) * np.sqrt(np.maximum(0, 1 - a2) / a2) * 1.9 / np.sqrt(dp - 1)
    return estimate, bound, ((rows.astype(np.float64) - z) ** 2).sum(1)


def score(rows, c, z, n=None):
    table = QueryTable(rows.shape[1])
    table.prepare(z)
    g = float(((z.astype(np.float64) - c) ** 2).sum())
    estimate, bound = score_with_rabitq(
        table, encode_rabitq(rows, c), len(rows) if n is None else n, g, np.sqrt(g)
    )
    return table, estimate, bound


def hard_vectors(rng: np.random.Generator, dim: int) -> list[NDArray[np.float32]]:
    x = rng.standard_normal(dim)
    sparse = np.where(np.arange(dim) == dim // 2, 3.0, 0.0)
    mixed = x * 10.0 ** rng.integers(-30, 15, size=dim)
    return [
        v.astype(np.float32)
        for v in (x, np.zeros(dim), -np.abs(x), sparse, x * 1e-30, x * 1e30, x * 1e-42, mixed, np.round(x))
    ]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dim", [*range(64, 1025, 64), 2048, 4096])
def test_every_variant_builds_the_same_table_and_estimates(name: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((33, dim)).astype(np.float32)
    c = rng.standard_normal(dim).astype(np.float32)
    for z in hard_vectors(rng, dim):
        seen = []
        for which in ("serial", name):
            with variant(which):
                table, estimate, bound = score(rows, c, z)
                seen.append(
                    (
                        table.entries().tobytes(),
                        np.array([table.scale, table.bias, table.squared_norm]).tobytes(),
                        estimate.tobytes(),
                        bound.tobytes(),
                    )
                )
        assert seen[0] == seen[1]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_scores_all_tails_alike(name: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((70, 192)).astype(np.float32)
    c, z = rows[0] * np.float32(0.1), rows[1] + np.float32(0.5)
    whole = score(rows, c, z)[1]
    for n in range(71):
        with variant("serial"):
            serial = score(rows[:n], c, z)
        with variant(name):
            other = score(rows[:n], c, z)
        assert np.array_equal(serial[1], other[1])
        assert np.array_equal(serial[2], other[2])
        assert np.array_equal(serial[1], whole[:n])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_adds_the_greatest_entries_without_overflow(name: str) -> None:
    """All signs agree and all groups are alike: sums of 1,024 x 15, as many as a byte takes of each run."""
    z = np.ones(4096, dtype=np.float32)
    rows = np.ones((32, 4096), dtype=np.float32)
    for which in ("serial", name):
        with variant(which):
            table, estimate, _ = score(rows, np.zeros(4096, np.float32), z)
            assert (table.entries().max(axis=1) == 15).all()
            inner = table.scale * 1024 * 15 + table.bias  # 4,096 but for the rounding
            assert estimate == pytest.approx(2 * (4096 - inner), rel=1e-5)


@pytest.mark.parametrize("dim", DIMS)
def test_estimates_are_the_papers_but_for_the_rounding_of_the_table(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((200, dim)).astype(np.float32)
    rows[7] = 0
    c = (rng.standard_normal(dim) * 0.3).astype(np.float32)
    rows[8] = c
    z = rng.standard_normal(dim).astype(np.float32)
    table, estimate, bound = score(rows, c, z)
    wanted, wanted_bound, _ = reference(rows, c, z)
    r = rows.astype(np.float64) - c
    with np.errstate(invalid="ignore"):
        rescale = np.nan_to_num(2 * (r * r).sum(1) / np.abs(r).sum(1))
    steps = dim / 4 * table.scale
    slack = 1e-5 * (np.abs(wanted) + rescale * np.abs(z).sum()) + 1e-5
    assert (np.abs(estimate - wanted) <= rescale * steps + slack).all()
    # Roundings are independent: eight deviations of their sum.
    assert (np.abs(estimate - wanted) <= rescale * 8 * table.scale * np.sqrt(dim / 48) + slack).all()
    assert bound == pytest.approx(wanted_bound, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dim", [64, 384, 1536])
def test_a_query_far_out_is_looked_up_twice_and_loses_less_to_the_rounding(name: str, dim: int) -> None:
    rng = np.random.default_rng(dim)
    c = rng.standard_normal(dim).astype(np.float32)
    rows = c + (0.02 * rng.standard_normal((300, dim))).astype(np.float32)
    z = c + (0.02 * rng.standard_normal(dim)).astype(np.float32)
    blocks, g = encode_rabitq(rows, c), float(((z.astype(np.float64) - c) ** 2).sum())
    wanted = reference(rows, c, z)[0]
    with variant(name):
        table = QueryTable(dim)
        table.prepare(z)
        assert not table.fine
        coarse, _ = score_with_rabitq(table, blocks, len(rows), g, np.sqrt(g))
        one = np.array([0, 1], np.uint32)
        rank_lists(table, 10 * z[None], one, encode_rabitq(z[None], z), 1)
        assert not table.fine, "the nearest cell is no nearer than the origin"
        rank_lists(table, c[None], one, encode_rabitq(c[None], c), 1)
        assert table.fine
        fine, _ = score_with_rabitq(table, blocks, len(rows), g, np.sqrt(g))
        assert np.std(fine - wanted) < np.std(coarse - wanted) / 8
        table.prepare(z)
        assert not table.fine
    with variant("serial"):
        table.prepare(z)
        rank_lists(table, c[None], one, encode_rabitq(c[None], c), 1)
        assert np.array_equal(score_with_rabitq(table, blocks, len(rows), g, np.sqrt(g))[0], fine)


@pytest.mark.parametrize("clustered", [False, True])
def test_the_error_bound_holds_for_the_stated_share_of_pairs(clustered: bool) -> None:
    held, pairs = 0, 0
    for dim in (64, 192, 384, 768):
        rng = np.random.default_rng(dim)
        rows = rng.standard_normal((4000, dim))
        if clustered:
            rows = rows * 0.3 + rng.standard_normal((20, dim))[rng.integers(20, size=4000)]
        rows = rows.astype(np.float32)
        c = rows[:400].mean(0)
        blocks, table = encode_rabitq(rows, c), QueryTable(dim)
        for i in range(40):
            z = rows[i] + (rng.standard_normal(dim) * 0.5).astype(np.float32)
            g = float(((z - c) ** 2).sum())
            table.prepare(z)
            estimate, bound = score_with_rabitq(table, blocks, len(rows), g, np.sqrt(g))
            held += int((np.abs(estimate - ((rows - z) ** 2).sum(1)) <= bound).sum())
            pairs += len(rows)
    assert held / pairs >= 0.94


def test_blocks_are_as_the_format_says() -> None:
    rng = np.random.default_rng(11)
    n, dim = 45, 128
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    c = rng.standard_normal(dim).astype(np.float32)
    shift = rng.random(n).astype(np.float32)
    blocks = encode_rabitq(rows, c, shift).reshape(2, 4 * dim + 384)
    r = rows.astype(np.float64) - c
    bits = r >= 0
    l1, l2 = np.abs(r).sum(1), (r * r).sum(1)
    rescale = -2 * l2 / l1
    add = l2 - rescale * (np.where(bits, 1.0, -1.0) @ c.astype(np.float64)) - shift
    for row in range(n):
        block, slot = blocks[row // 32], row % 32
        for g in range(dim // 4):
            byte = block[32 * (g // 2) + 16 * (g % 2) + slot % 16]
            nibble = byte >> 4 if slot >= 16 else byte & 15
            assert nibble == sum(int(bits[row, 4 * g + i]) << i for i in range(4))
        factors = block[4 * dim :].view("<f4").reshape(3, 32)[:, slot]
        assert factors[:2] == pytest.approx([add[row], rescale[row]], rel=1e-6, abs=1e-5)
    tail = blocks[1, : 4 * dim].reshape(-1, 16)
    assert not tail[:, 13:].any()
    assert not (tail >> 4).any()
    assert not blocks[1, 4 * dim :].view("<f4").reshape(3, 32)[:, 13:].any()


def test_the_shift_turns_the_estimate_into_an_inner_product() -> None:
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((100, 384)).astype(np.float32)
    z = rng.standard_normal(384).astype(np.float32)
    c = np.zeros(384, np.float32)
    table = QueryTable(384)
    table.prepare(z, float((z**2).sum()))
    g = float((z**2).sum())
    estimate, bound = score_with_rabitq(
        table, encode_rabitq(rows, c, (rows**2).sum(1)), 100, g - table.q_shift, np.sqrt(g)
    )
    assert (np.abs(estimate + 2 * rows @ z) <= bound).mean() > 0.9


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dims", [range(1, 301), [384, 511, 513, 1000, 2048, 3000, 4096]])
def test_every_variant_rotates_alike(name: str, dims: list[int]) -> None:
    for dim in dims:
        rng = np.random.default_rng(dim)
        width = padded(dim)
        x = np.stack([rng.standard_normal(dim), rng.standard_normal(dim) * 1e30, np.zeros(dim)]).astype(
            np.float32
        )
        mean = rng.standard_normal(dim).astype(np.float32)
        signs = rng.integers(256, size=(4, width // 8), dtype=np.uint8)
        out = np.empty((2, 3, width), dtype=np.float32)
        for i, which in enumerate(("serial", name)):
            with variant(which):
                rabitq.rotate(x, mean, signs, out[i])
        assert out[0].tobytes() == out[1].tobytes()


def test_a_query_is_sound_if_kernels_can_read_it_and_its_norm_is_within_bounds() -> None:
    x = np.array([3.0, 4.0], dtype=np.float32)
    x.flags.writeable = False
    assert rabitq.is_sound(x, 2, 25.0, 25.0)
    assert not rabitq.is_sound(x, 2, 25.1, 30.0)
    assert not rabitq.is_sound(x, 2, 20.0, 24.9)
    for bad in (np.nan, np.inf, -np.inf):
        assert not rabitq.is_sound(
            np.array([1.0, bad], dtype=np.float32), 2, 0.0, np.inf if bad != bad else 1e30
        )
    wide = np.zeros((2, 4), dtype=np.float32)
    shifted = np.frombuffer(bytes(9), dtype=np.uint8)[1:].view(np.float32)
    for other in (
        [3.0, 4.0],
        x.astype(np.float64),
        x.astype(">f4"),
        x.view(np.int32),
        x.reshape(1, 2),
        wide[0, ::2],
        wide[0],
        shifted,
        np.ma.array(x),
        None,
    ):
        assert not rabitq.is_sound(other, 2, 0.0, 100.0)


def test_a_batch_is_sound_if_each_of_its_rows_is() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]], dtype=np.float32)
    rows.flags.writeable = False
    assert rabitq.are_sound(rows, 2, 1.0, 100.0)
    assert rabitq.are_sound(rows[1:], 2, 1.0, 100.0)
    assert rabitq.are_sound(rows[:0], 2, 1.0, 100.0)
    for row in range(3):
        for bad in (np.nan, np.inf, 0.0, 11.0):
            spoilt = rows.copy()
            spoilt[row] = bad, 0.0
            assert not rabitq.are_sound(spoilt, 2, 1.0, 100.0)
    for other in (rows[0], rows[:, :1], rows[::2], rows.T, rows.astype(np.float64), rows.tolist(), None):
        assert not rabitq.are_sound(other, 2, 1.0, 100.0)


def test_bad_arguments_are_refused() -> None:
    f4, u1 = np.float32, np.uint8
    for bad in (0, 32, 100, -64, 4160):
        with pytest.raises(ValueError):
            QueryTable(bad)
    table = QueryTable(64)
    z = np.zeros(64, f4)
    block = np.zeros(640, u1)
    with pytest.raises(ValueError, match="not prepared"):
        score_with_rabitq(table, block, 1, 0, 0)
    with pytest.raises(ValueError):
        table.prepare(np.zeros(63, f4))
    with pytest.raises(ValueError):
        table.prepare(np.zeros(64, np.float64))  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        table.prepare(np.zeros(128, f4)[::2])
    table.prepare(z)
    for n in (-1, 33):
        with pytest.raises(ValueError):
            score_with_rabitq(table, block, n, 0, 0)
    rows = np.zeros((3, 64), f4)
    for args in (
        (np.zeros((3, 60), f4), np.zeros(60, f4)),
        (rows, np.zeros(128, f4)),
        (rows, z, np.zeros(2, f4)),
        (rows[:, ::2], z),
        (np.zeros((3, 0), f4), np.zeros(0, f4)),
    ):
        with pytest.raises(ValueError):
            encode_rabitq(*args)
    x, signs, out = np.zeros((3, 60), f4), np.zeros((4, 8), u1), np.zeros((3, 64), f4)
    rabitq.rotate(x, None, signs, out)
    for arguments in (
        (x, np.zeros(64, f4), signs, out),
        (x, None, signs[:, :4].copy(), out),
        (x, None, signs[:0], out),
        (x, None, signs, np.zeros((2, 64), f4)),
        (x, None, signs, np.zeros((3, 128), f4)),
        (x, None, signs, np.zeros((64, 3), f4).T),
        (x.astype(np.float64), None, signs, out),
    ):
        with pytest.raises(ValueError):
            rabitq.rotate(*arguments)
    with pytest.raises(ValueError, match="available: serial"):
        rabitq.use_simd("mmx")


@pytest.mark.parametrize("name", rabitq.simd_available())
def test_the_environment_chooses_the_variant(name: str) -> None:
    code = "from vecstore.ext import rabitq; print(rabitq.simd())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "VECSTORE_SIMD": name},
        capture_output=True,
        text=True,
    )
    assert run.stdout.strip() == name


def test_an_unknown_variant_in_the_environment_is_one_clear_error() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "import vecstore.ext.rabitq"],
        env={**os.environ, "VECSTORE_SIMD": "mmx"},
        capture_output=True,
        text=True,
    )
    assert run.stderr.strip().splitlines()[-1].startswith("ImportError: VECSTORE_SIMD='mmx' is not available")
