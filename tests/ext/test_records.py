"""Kernels that make a part's records."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ext.helpers import Part, padded
from vecstore.ext import ivf, records
from vecstore.ext.ivf import Pool
from vecstore.ext.rabitq import QueryTable, encode_rabitq

ALL = 0xFFFFFFFF


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 384])
def test_unit_rows_have_the_norm_1(dim: int) -> None:
    x = np.random.default_rng(dim).standard_normal((20, dim)).astype(np.float32)
    x[1] *= np.float32(1e-25)
    x[2] *= np.float32(1e25)
    out = np.empty_like(x)
    records.unit_rows(x, out)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(out, wide / np.sqrt((wide**2).sum(1, keepdims=True)), rtol=1e-7)
    with pytest.raises(ValueError):
        records.unit_rows(x, out[:3])


@pytest.mark.parametrize(("codes", "int8"), [(True, True), (True, False), (False, True), (False, False)])
def test_records_are_as_the_format_says(codes: bool, int8: bool) -> None:
    for with_ids in (True, False):
        part = Part(np.random.default_rng(1), 128, [3, 0, 40, 32], codes=codes, int8=int8, with_ids=with_ids)
        for i, n in enumerate(part.sizes):
            record = part.out[part.offsets[i] : part.offsets[i + 1]]
            flags = int8 + 2 * codes + 4 * with_ids
            assert record[:8].view("<u4").tolist() == [n, flags]
            centroid = part.c8[i].astype(np.float64) * part.scales[i]
            norm = np.float32((centroid**2).sum())
            assert record[8:16].view("<f4") == pytest.approx([part.scales[i], norm], rel=1e-7)
            assert record[16:20].view("<u4").tolist() == [128]
            assert not record[20:64].any()
            assert np.array_equal(record[64:192].view(np.int8), part.c8[i])
            rows = part.z[part.starts[i] : part.starts[i + 1]]
            at = 192
            if codes:
                wanted = encode_rabitq(rows, part.centroids[i])
                assert np.array_equal(record[at : at + len(wanted)], wanted)
                at += len(wanted)
            if int8:
                q = record[at : at + n * 128].view(np.int8).reshape(n, 128).astype(np.float64)
                factors = record[at + n * 128 :][: 8 * n].view("<f4").reshape(n, 2)
                residual = rows - centroid
                assert np.abs(q * factors[:, :1] - residual).max(initial=0) <= (
                    factors[:, 0].max(initial=0) * 0.5001
                )
                assert np.abs(q).max(axis=1, initial=0).tolist() == [127] * n
                add = (residual**2).sum(1) + 2 * factors[:, 0] * (q @ centroid)
                assert factors[:, 1] == pytest.approx(add, rel=1e-5, abs=1e-4)
                at = padded(at + n * 136)
            assert at == ivf.record_layout(n, 128, codes, int8)[3]
            if with_ids:
                assert record[at : at + 8 * n].view("<u8").tolist() == part.ids[part.list_of == i].tolist()
                at += 8 * n
            assert not record[at:].any()


def test_a_row_on_its_centroid_has_no_residual() -> None:
    c8, scales = np.zeros((1, 64), np.int8), np.ones(1, np.float32)
    offsets = np.array([0, 4096], np.int64)
    out = np.empty(4096, np.uint8)
    starts = np.array([0, 1], np.int64)
    records.encode_lists(
        np.zeros((1, 64), np.float32), starts, c8, scales, None, None, True, True, offsets, out
    )
    table = QueryTable(64)
    table.prepare(np.ones(64, np.float32))
    for scan in ("codes", "int8"):
        pool, words, zero = Pool(1), np.array([ALL], np.uint32), np.zeros(1, np.int64)
        if scan == "codes":
            ivf.scan_lists(table, pool, 0, np.array([out.ctypes.data], np.uint64), zero, zero, words)
        else:
            ivf.scan_int8(table, pool, 0, out.ctypes.data, 0, words)
        assert pool.threshold == 64


def test_centroids_are_scale_times_int8_exactly() -> None:
    c = np.random.default_rng(0).standard_normal((50, 320)).astype(np.float32)
    c[7] = 0
    c[8] *= 1e-20
    c8, scales = records.quantise_centroids(c)
    product = c8.astype(np.float64) * scales[:, None]
    assert np.array_equal((c8.astype(np.float32) * scales[:, None]).astype(np.float64), product)
    assert (np.abs(product - c) <= scales[:, None] * 0.5001).all()


def test_bad_lists_are_not_encoded() -> None:
    good = {
        "rows": np.zeros((4, 64), np.float32),
        "starts": np.array([0, 4]),
        "centroids": np.zeros((1, 64), np.int8),
        "scales": np.ones(1, np.float32),
        "shift": None,
        "ids": np.zeros(4, np.uint64),
        "codes": True,
        "int8": True,
        "offsets": np.array([0, 1408]),
        "out": np.zeros(1408, np.uint8),
    }
    records.encode_lists(**good)  # type: ignore[arg-type]
    for bad in (
        {"rows": np.zeros((4, 128), np.float32)},
        {"rows": np.zeros((3, 64), np.float32)},
        {"starts": np.array([0, 5])},
        {"starts": np.array([-1, 4])},
        {"starts": np.array([4, 0])},
        {"starts": np.array([0, 2, 4])},
        {"scales": np.ones(2, np.float32)},
        {"shift": np.zeros(3, np.float32)},
        {"ids": np.zeros(3, np.uint64)},
        {"offsets": np.array([0, 1000])},
        {"offsets": np.array([0, 1472])},
        {"offsets": np.array([32, 1408])},
        {"out": np.zeros(1000, np.uint8)},
    ):
        with pytest.raises(ValueError):
            records.encode_lists(**{**good, **bad})  # type: ignore[arg-type]
