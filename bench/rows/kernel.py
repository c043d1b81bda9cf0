"""Row 11: bytes of codes that the scan kernel reads a second, beside what the machine can.

From memory the limit is what one core reads of an array that no cache holds (a sum over it). From
L2 it is the kernel's own rate out of L1, where nothing is waited for: its look-ups. That rate is of the
rows that 512 take longer than 64, so the cost of the call is not in it. Answers are written too, 4 bytes
a row, and not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bench.measure import Clock
from bench.rows import Run, Verdict
from vecstore.ext import rabitq
from vecstore.index.rotation import Rotation

DIM = 384
FEW, SOME = 64, 512  # rows, whose codes are in L1
CACHED = 8_192  # rows: 500 KB of codes, in L2
FAR = 4_000_000  # rows: 240 MB
FLOOR = 0.7


def scan(run: Run) -> Iterator[Verdict]:
    """Row 11, through `score_with_rabitq`."""
    rng = np.random.default_rng(1)
    rotation = Rotation(DIM, 1)
    query = rotation.apply(rng.standard_normal((1, DIM), dtype=np.float32))
    table = rabitq.QueryTable(rotation.padded_dim)
    table.prepare(query[0], 0.0)
    some = rng.standard_normal((CACHED, rotation.padded_dim), dtype=np.float32)
    codes = rabitq.encode_rabitq(some, np.zeros(rotation.padded_dim, dtype=np.float32))
    row_bytes = codes.nbytes / CACHED

    def seconds(blocks: np.ndarray, rows: int, inner: int) -> float:
        return _least(run.timer, lambda: rabitq.score_with_rabitq(table, blocks, rows, 1, 1), inner)

    longer = seconds(codes, SOME, 2_000) - seconds(codes, FEW, 2_000)
    look_ups = (SOME - FEW) * row_bytes / longer
    cached = CACHED * row_bytes / seconds(codes, CACHED, 50)
    far = np.tile(codes, (FAR // CACHED, *([1] * (codes.ndim - 1))))
    memory = far.nbytes / seconds(far, FAR // CACHED * CACHED, 1)
    words = np.frombuffer(far, dtype=np.int64)
    limit = words.nbytes / _least(run.timer, lambda: np.bitwise_or.reduce(words), 1)
    for where, found, most in (("L2", cached, max(look_ups, cached)), ("memory", memory, limit)):
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


def _least(clock: Clock, call: Callable[[], object], inner: int, repeats: int = 7) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        for _ in range(inner):
            call()
        best = min(best, (clock() - start) / inner)
    return best
