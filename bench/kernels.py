"""Time of each kernel, per variant, on one core: ``python bench/kernels.py [--dim 384]``.

Least of many repeats, so that a busy machine shows only if it is always busy. Rows of "scan" lie in
L2 (2,048 rows) or far beyond it (400,000 rows).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from vecstore.ext import ivf, rabitq, records, rerank, train
from vecstore.index.rotation import Rotation


def least(call: Callable[[], object], repeats: int, inner: int = 1) -> float:
    """Nanoseconds of one call."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter_ns()
        for _ in range(inner):
            call()
        best = min(best, (time.perf_counter_ns() - start) / inner)
    return best


class Lists:
    def __init__(self, rng: np.random.Generator, lists: int, size: int, dim: int) -> None:
        n = lists * size
        rows = rng.standard_normal((n, dim), dtype=np.float32)
        starts = np.arange(lists + 1, dtype=np.int64) * size
        centroids, scales = records.quantise_centroids(rows[::size] * np.float32(0.5))
        layout = ivf.record_layout(size, dim, True, True)
        length = -(-(layout[3] + 8 * size) // 64) * 64
        offsets = np.arange(lists + 1, dtype=np.int64) * length
        out = np.empty(int(offsets[-1]) + 64, dtype=np.uint8)
        out = out[-out.ctypes.data % 64 :][: int(offsets[-1])]
        ids = np.arange(n, dtype=np.uint64)

        def encode() -> None:
            records.encode_lists(rows, starts, centroids, scales, None, ids, True, True, offsets, out)

        self.encode = least(encode, 20 if n < 10_000 else 1) / n
        self.out = out
        self.n = n
        self.addresses = (out.ctypes.data + offsets[:-1]).astype(np.uint64)
        self.first_rows = starts[:-1].copy()
        blocks = -(-size // 32)
        self.first_blocks = np.arange(lists, dtype=np.int64) * blocks
        self.words = np.full(lists * blocks, 0xFFFFFFFF, dtype=np.uint32)

    def scan(self, table: rabitq.QueryTable, pool: ivf.Pool) -> None:
        ivf.scan_lists(table, pool, 0, self.addresses, self.first_rows, self.first_blocks, self.words)


def measure(dim: int) -> dict[str, float]:
    rng = np.random.default_rng(1)
    rotation = Rotation(dim, 1)
    dp = rotation.padded_dim
    x = rng.standard_normal((1, dim), dtype=np.float32)
    z = rotation.apply(x)
    table, pool = rabitq.QueryTable(dp), ivf.Pool(50)
    out = {}
    out["rotate, ns a vector"] = least(lambda: rotation.apply(x, out=z), 200, 20)
    many = rng.standard_normal((2048, dim), dtype=np.float32)
    out["rotate 2,048, ns a vector"] = least(lambda: rotation.apply(many), 20) / 2048
    out["prepare, ns a query"] = least(lambda: table.prepare(z[0], 0.0), 200, 50)

    rows = rng.standard_normal((2048, dp), dtype=np.float32)
    centre = np.zeros(dp, dtype=np.float32)
    blocks = rabitq.encode_rabitq(rows, centre)
    out["score_with_rabitq, ns a row, L2"] = (
        least(lambda: rabitq.score_with_rabitq(table, blocks, 2048, 1, 1), 100, 5) / 2048
    )
    for label, lists, size in (("1 list of 2,048", 1, 2048), ("64 lists of 32", 64, 32)):
        some = Lists(rng, lists, size, dp)
        for row in range(3):
            table.prepare(z[0] * np.float32(1 + row / 10), 0.0)

        def scan(some: Lists = some) -> None:
            pool.reset(50)
            some.scan(table, pool)

        out[f"scan {label}, ns a row"] = least(scan, 200, 5) / some.n
    far = Lists(rng, 400_000 * 384 // dp // 32, 32, dp)
    out["encode_lists, ns a row"] = some.encode

    def scan_far() -> None:
        pool.reset(50)
        far.scan(table, pool)

    out["scan from DRAM, ns a row"] = least(scan_far, 5) / far.n

    pool.reset(1000)
    some.scan(table, pool)
    out["rerank_int8 1,000, ns a row read"] = least(lambda: rerank.rerank_int8(table, pool, 1000), 100) / 1000
    out["pool_hits 10 of 1,000, ns"] = least(lambda: rerank.pool_hits(pool, 10), 100)
    for size in (50, 100, 200):  # most of it to put the pool in order
        pool.reset(size)
        some.scan(table, pool)
        out[f"pool_hits 10 of {size}, ns"] = least(lambda: rerank.pool_hits(pool, 10), 200, 20)
    pool.reset(200)
    some.scan(table, pool)
    out["rerank_int8 200 to 10, ns"] = least(lambda: rerank.rerank_int8(table, pool, 10), 200)

    lists, cells = 1875, 43
    bounds = np.linspace(0, lists, cells + 1).astype(np.uint32)
    centres = rng.standard_normal((cells, dp), dtype=np.float32)
    members = np.repeat(centres, np.diff(bounds), axis=0)
    members += rng.standard_normal(members.shape, dtype=np.float32)
    codes = np.concatenate(
        [rabitq.encode_rabitq(members[bounds[c] : bounds[c + 1]], centres[c]) for c in range(cells)]
    )
    out["rank_lists 100 of 1,875, ns"] = least(
        lambda: ivf.rank_lists(table, centres, bounds, codes, 100), 200, 5
    )
    vectors = rng.standard_normal((500, dim), dtype=np.float32)
    words = np.full(16, 0xFFFFFFFF, dtype=np.uint32)
    for dtype in ("f4", "f2"):
        held = vectors.astype(dtype)

        def exact(held: np.ndarray = held, dtype: str = dtype) -> None:
            pool.reset(50)
            ivf.scan_vectors(x[0], pool, 0, held.ctypes.data, dtype, 500, "l2", words)

        out[f"scan_vectors {dtype} l2, ns a row"] = least(exact, 200) / 500
    dots, half = rng.standard_normal((512, 512), dtype=np.float32), np.zeros(512, dtype=np.float32)
    best, labels = np.empty(512, dtype=np.float32), np.empty(512, dtype=np.int32)

    def assign() -> None:
        best.fill(np.inf)
        train.assign_nearest(dots, half, 0, best, labels)

    out["assign_nearest, ns a row of 512"] = least(assign, 100) / 512
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=384)
    dim = parser.parse_args().dim
    columns = {}
    for name in rabitq.simd_available():
        rabitq.use_simd(name)
        columns[name] = measure(dim)
    print(f"{'D = ' + str(dim):36}" + "".join(f"{name:>12}" for name in columns) + "       ratio")
    serial = columns["serial"]
    best = list(columns)[-1]
    for what in serial:
        values = "".join(f"{columns[name][what]:12.2f}" for name in columns)
        print(f"{what:36}{values}{serial[what] / columns[best][what]:12.1f}")


if __name__ == "__main__":
    main()
