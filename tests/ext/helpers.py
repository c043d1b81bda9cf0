"""A part in memory, encoded by the kernels, with the truth beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from vecstore.ext import ivf, rabitq, records

VARIANTS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(name not in rabitq.simd_available(), reason=f"no {name} on this processor"),
    )
    for name in ("avx2", "avx512")
]


@contextmanager
def variant(name: str) -> Iterator[None]:
    before = rabitq.simd()
    rabitq.use_simd(name)
    try:
        yield
    finally:
        rabitq.use_simd(before)


def padded(n: int) -> int:
    return -(-n // 64) * 64


@dataclass
class Part:
    """Random rows (already rotated) in `sizes` lists, with an id of 3 * row + 7 each."""

    rng: np.random.Generator
    dim: int
    sizes: list[int]
    codes: bool = True
    int8: bool = True
    with_ids: bool = True
    shift: NDArray[np.float32] | None = None
    z: NDArray[np.float32] = field(init=False)
    out: NDArray[np.uint8] = field(init=False)

    def __post_init__(self) -> None:
        lists, n = len(self.sizes), sum(self.sizes)
        centres = self.rng.standard_normal((lists, self.dim)).astype(np.float32)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        self.list_of = np.repeat(np.arange(lists), self.sizes)
        noise = self.rng.standard_normal((n, self.dim)).astype(np.float32) * np.float32(0.5)
        self.z = centres[self.list_of] + noise
        self.c8, self.scales = records.quantise_centroids(centres)
        self.centroids = self.c8.astype(np.float32) * self.scales[:, None]
        self.ids = (np.arange(n) * 3 + 7).astype(np.uint64)
        lengths = [
            padded(ivf.record_layout(m, self.dim, self.codes, self.int8)[3] + 8 * m) for m in self.sizes
        ]
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        blocks = -(-np.asarray(self.sizes) // 32)
        self.first_blocks = (np.cumsum(blocks) - blocks).astype(np.int64)
        self.blocks = int(blocks.sum())
        self.out = np.full(self.offsets[-1], 255, dtype=np.uint8)
        records.encode_lists(
            self.z,
            self.starts,
            self.c8,
            self.scales,
            self.shift,
            self.ids if self.with_ids else None,
            self.codes,
            self.int8,
            self.offsets,
            self.out,
        )
        self.addresses = (self.out.ctypes.data + self.offsets[:-1]).astype(np.uint64)

    @property
    def n(self) -> int:
        return len(self.z)

    def words(self, allowed: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """One word a block from one flag a row; slots beyond a list's last are set, as a trap."""
        words = np.full(self.blocks, 0xFFFFFFFF, dtype=np.uint32)
        for row in np.flatnonzero(~allowed):
            slot = int(row - self.starts[self.list_of[row]])
            block = int(self.first_blocks[self.list_of[row]]) + slot // 32
            words[block] &= np.uint32(0xFFFFFFFF ^ (1 << slot % 32))
        return words

    def scan(
        self,
        table: rabitq.QueryTable,
        pool: ivf.Pool,
        lists: NDArray[np.int64] | None = None,
        words: NDArray[np.uint32] | None = None,
        part: int = 0,
        skip_bound: bool = False,
    ) -> int:
        lists = np.arange(len(self.sizes)) if lists is None else lists
        words = np.full(self.blocks, 0xFFFFFFFF, dtype=np.uint32) if words is None else words
        return ivf.scan_lists(
            table,
            pool,
            part,
            self.addresses[lists],
            self.starts[:-1][lists],
            self.first_blocks[lists],
            words,
            skip_bound,
        )

    def area(self, i: int, which: int) -> NDArray[np.uint8]:
        """The bytes of list i from its blocks (0), int8 rows (1), factors (2) or ids (3)."""
        at = ivf.record_layout(self.sizes[i], self.dim, self.codes, self.int8)
        return self.out[self.offsets[i] + at[which] : self.offsets[i + 1]]
