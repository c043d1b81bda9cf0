"""Row 11: what the scan kernel reads and looks up a second, beside what the machine can.

From memory the limit is what one core reads of an array that no cache holds (a sum over it). Lists are
scanned as a query does it, far apart and in no order; of each the header, the centroid and the codes with
their factors are read, and counted. Beside it stands what the same lists give when they are only read, in
the same order, at the best of several distances ahead: where memory answers late, no scan can be faster.
From L2 the limit is the kernel's own rate out of L1, where nothing is waited for: its look-ups. That rate
is of the rows that 512 take longer than 64, so the cost of the call is not in it. Answers are written too,
8 bytes a row, and not counted.

Look-ups are of the kernel alone (`lookups.c` calls it as a scan does, codes in L1 and in L2), beside two
limits of the same run on registers: the look-up instruction alone, and with what no look-up of packed
codes can do without, its shift, mask and addition. The second is judged: a processor has as many ports for
all of them together as for the first.
"""

from __future__ import annotations

import ctypes
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from bench.kernels import Lists
from bench.measure import Clock
from bench.rows import Run, Verdict
from vecstore.ext import ivf, rabitq
from vecstore.index.rotation import Rotation

DIM = 384
FEW, SOME = 64, 512  # rows, whose codes are in L1
CACHED = 8_192  # rows: 500 KB of codes, in L2
FAR = 25_000  # lists of a block, whose records are 380 MB and of them 59 MB scanned
FLOOR = 0.7
BLOCK, HEADER = 32, 64  # rows; bytes
LANES = {"avx2": 32, "avx512": 64}  # look-ups an instruction
ROUNDS = 20_000  # of 16 instructions; as the next, so many that the call itself does not count
PASSES = 16  # over the codes in L2
AHEAD = (1, 2, 4, 8)  # lists on their way while one is read
SOURCES = Path(__file__).parent.parent.parent / "ext"
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-w")  # of setup.py


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
    far = Lists(rng, FAR, BLOCK, rotation.padded_dim)
    order = rng.permutation(FAR)
    where = (far.addresses[order], far.first_rows[order], far.first_blocks[order], far.words)
    pool = ivf.Pool(50)

    def scan_far() -> None:
        pool.reset(50)
        ivf.scan_lists(table, pool, 0, *where)

    a_list = int(HEADER + rotation.padded_dim + BLOCK * row_bytes)
    scanned = FAR * a_list
    memory = scanned / _least(run.timer, scan_far, 1)
    library, size = _compiled(), ctypes.c_size_t
    addresses = ctypes.c_void_p(where[0].ctypes.data)
    read = max(
        scanned
        / _least(run.timer, partial(library.vs_read, addresses, size(FAR), size(a_list), size(ahead)), 1)
        for ahead in AHEAD
    )
    limit = bytes_a_second(run.timer, far.out.view(np.int64))
    for place, found, most in (("L2", cached, max(look_ups, cached)), ("memory", memory, limit)):
        ratio = found / most
        yield Verdict(
            11,
            f"D = {DIM}",
            f"bytes a second scanned from {place}, over the limit",
            ratio,
            f"≥ {FLOOR}",
            ratio >= FLOOR,
            f"{found / 1e9:.1f} GB/s of {most / 1e9:.1f} ({row_bytes:.0f} bytes a row)",
        )
    yield Verdict(
        11,
        f"D = {DIM}",
        "bytes a second scanned from memory, over those lists only read",
        memory / read,
        detail=f"{memory / 1e9:.1f} GB/s of {read / 1e9:.1f}",
    )
    yield from _look_ups(run, table, codes, library)


def bytes_a_second(clock: Clock, words: np.ndarray) -> float:
    """What one core reads of an i64 array; of the memory if no cache holds it."""
    return words.nbytes / _least(clock, lambda: np.bitwise_or.reduce(words), 1)


def _look_ups(
    run: Run, table: rabitq.QueryTable, codes: np.ndarray, library: ctypes.CDLL
) -> Iterator[Verdict]:
    """Look-ups a second of the variant in use."""
    isa, padded_dim = rabitq.simd(), table.padded_dim
    if isa not in LANES:
        yield Verdict(
            11, f"D = {DIM}", f"look-ups a second of {isa}", None, detail="no limit was written for it"
        )
        return
    size = ctypes.c_size_t
    alone, packed = (
        16
        * ROUNDS
        * LANES[isa]
        / _least(run.timer, partial(library[f"vs_{kind}_{isa}"], size(ROUNDS)), 1, 300)
        for kind in ("shuffles", "look_ups")
    )
    lut, blocks = _aligned(table.entries()), _aligned(codes)
    for where, rows in (("L1", FEW * 4), ("L2", CACHED)):
        again = PASSES * CACHED // rows
        scan = partial(
            library.vs_scan,
            isa.encode(),
            ctypes.c_void_p(lut.ctypes.data),
            size(padded_dim),
            ctypes.c_void_p(blocks.ctypes.data),
            size(rows // BLOCK),
            size(again),
        )
        found = rows * again * padded_dim / 4 / _least(run.timer, scan, 1, 300)
        yield Verdict(
            11,
            f"D = {DIM}",
            f"look-ups a second from {where}, over the limit",
            found / packed,
            f"≥ {FLOOR}",
            found / packed >= FLOOR,
            f"{isa}: {found / 1e9:.1f} of {packed / 1e9:.1f} G/s with mask, shift and sum; "
            f"{alone / 1e9:.1f} G/s of the instruction alone, {found / alone:.2f} of that",
        )


def _compiled() -> ctypes.CDLL:
    """`lookups.c` by the system's compiler, with the flags of the extension modules."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "lookups.so"
        source = Path(__file__).with_name("lookups.c")
        subprocess.run([compiler, *FLAGS, f"-I{SOURCES}", source, "-o", library], check=True)
        return ctypes.CDLL(str(library))


def _aligned(data: np.ndarray) -> np.ndarray:
    """A copy whose address is a multiple of a cache line, as in a record."""
    space = np.empty(data.nbytes + 64, dtype=np.uint8)
    copy = space[-space.ctypes.data % 64 :][: data.nbytes]
    copy[:] = data.reshape(-1).view(np.uint8)
    return copy


def _least(clock: Clock, call: Callable[[], object], inner: int, repeats: int = 7) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = clock()
        for _ in range(inner):
            call()
        best = min(best, (clock() - start) / inner)
    return best
