"""Row 11: bytes of codes that the scan kernel reads a second, beside what the machine can.

From memory the limit is what one core reads of an array that no cache holds (a sum over it). From
cache it is the kernel's own look-ups: the codes of one block, scored again and again out of L1, so
that nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from bench.rows import Run, Verdict
from vecstore.ext import rabitq
from vecstore.index.rotation import Rotation

DIM = 384
CACHED = 8_192  # rows: 400 KB of codes, in L2
FAR = 4_000_000  # rows: 200 MB
FLOOR = 0.7


def scan(run: Run) -> Iterator[Verdict]:
    """Row 11, through `score_with_rabitq`."""
    del run
    rng = np.random.default_rng(1)
    rotation = Rotation(DIM, 1)
    query = rotation.apply(rng.standard_normal((1, DIM), dtype=np.float32))
    table = rabitq.QueryTable(rotation.padded_dim)
    table.prepare(query[0], 0.0)
    some = rng.standard_normal((CACHED, rotation.padded_dim), dtype=np.float32)
    codes = rabitq.encode_rabitq(some, np.zeros(rotation.padded_dim, dtype=np.float32))
    row_bytes = codes.nbytes / CACHED

    def rate(blocks: np.ndarray, rows: int, inner: int) -> float:
        seconds = _least(lambda: rabitq.score_with_rabitq(table, blocks, rows, 1, 1), inner)
        return rows * row_bytes / seconds

    first = 64
    look_ups = rate(codes[: max(1, len(codes) * first // CACHED)], first, 2_000)
    cached = rate(codes, CACHED, 50)
    far = np.tile(codes, (FAR // CACHED, *([1] * (codes.ndim - 1))))
    memory = rate(far, FAR // CACHED * CACHED, 1)
    words = np.frombuffer(far, dtype=np.int64)
    limit = words.nbytes / _least(lambda: np.bitwise_or.reduce(words), 1)
    for where, found, most in (("L2", cached, look_ups), ("memory", memory, limit)):
        ratio = found / most
        yield Verdict(
            11,
            f"D = {DIM}",
            f"bytes of codes a second from {where}, over the limit",
            ratio,
            f"≥ {FLOOR}",
            ratio >= FLOOR,
            f"{found / 1e9:.1f} GB/s of {most / 1e9:.1f} ({row_bytes:.0f} bytes a row)",
        )


def _least(call: Callable[[], object], inner: int, repeats: int = 7) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(inner):
            call()
        best = min(best, (time.perf_counter() - start) / inner)
    return best
