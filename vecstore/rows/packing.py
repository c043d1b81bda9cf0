"""Arrays of integers in as few bits as they need, and texts in compressed blocks; both read at any place.

What is written is described in ``docs/formats/columns.md``. Imports limits, deadline, NumPy
and msgspec.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from vecstore import deadline
from vecstore.limits import MAX_VALUE_BYTES
from vecstore.types import U64

Bytes = npt.NDArray[np.uint8]

WINDOW: Final = 8  # bytes that are read for a packed integer, from its first on
WIDEST: Final = 56  # bits of one that does not begin with a byte
CHUNK: Final = 65_536
BLOCK_BYTES: Final = 16 << 10  # of texts, before they are compressed
KEPT_BLOCKS: Final = 64  # of one dictionary in memory
LEVEL: Final = 6


class Packing(Struct, frozen=True, array_like=True):
    """How integers are packed: the least of them, bits of each above it, how many."""

    low: int
    bits: int
    count: int

    @property
    def length(self) -> int:
        """Bytes that they take."""
        return -(-self.count * self.bits // 8) + WINDOW if self.bits else 0


def pack(values: npt.NDArray[np.integer], *, whole_bytes: bool = False) -> tuple[Packing, Iterator[bytes]]:
    """Integers, none of them negative, each as its distance from the least; the data comes in pieces.

    Parameters
    ----------
    whole_bytes
        8, 16, 32 or 64 bits, which can be read as they lie.
    """
    low = int(values.min()) if len(values) else 0
    bits = (int(values.max()) - low).bit_length() if len(values) else 0
    if bits and (whole_bytes or bits > WIDEST):
        bits = max(8, 1 << (bits - 1).bit_length())
    packing = Packing(low, bits, len(values))
    return packing, _packed(packing, values)


def _packed(packing: Packing, values: npt.NDArray[np.integer]) -> Iterator[bytes]:
    bits = packing.bits
    if not bits:
        return
    for start in range(0, len(values), CHUNK):
        some = values[start : start + CHUNK].astype("<u8") - np.uint64(packing.low)
        if bits in (8, 16, 32, 64):
            yield some.astype(f"<u{bits // 8}").tobytes()
            continue
        single = np.unpackbits(some.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little", count=bits)
        yield np.packbits(single, bitorder="little").tobytes()
    yield bytes(WINDOW)


def unpack(packing: Packing, data: Bytes, at: npt.NDArray[np.int64] | slice | None = None) -> U64:
    """u64: the integers at these places; all of them if none are named."""
    low = np.uint64(packing.low)
    if at is None:
        at = slice(0, packing.count)
    if isinstance(at, slice):
        start, stop, _ = at.indices(packing.count)
        n = stop - start
    else:
        n = len(at)
    if not packing.bits:
        return np.full(n, low, dtype=np.uint64)
    if packing.bits in (8, 16, 32, 64):
        whole = data[: packing.count * packing.bits // 8].view(f"<u{packing.bits // 8}")
        packed: U64 = whole[at].astype(np.uint64)
        return packed + low
    if isinstance(at, slice):
        return _run(packing, data, start, stop) + low
    bit = at * packing.bits
    windows: npt.NDArray[np.uint64] = np.ndarray((len(data) - WINDOW + 1,), "<u8", data, strides=(1,))
    found: U64 = windows[bit >> 3] >> (bit & 7).astype(np.uint64)
    found &= np.uint64((1 << packing.bits) - 1)
    return found + low


def unpack_one(packing: Packing, data: Bytes, place: int) -> int:
    """The integer at one place."""
    if not packing.bits:
        return packing.low
    bit = place * packing.bits
    window = int.from_bytes(data[bit >> 3 : (bit >> 3) + WINDOW].tobytes(), "little") >> (bit & 7)
    return packing.low + (window & ((1 << packing.bits) - 1))


def _run(packing: Packing, data: Bytes, start: int, stop: int) -> U64:
    """Integers in a row, above the least. Eight take ``bits`` bytes, so that every eighth lies alike."""
    first = start - start % 8
    out = np.empty((-(-(stop - first) // 8), 8), dtype=np.uint64)
    for i in range(min(8, stop - first)):
        byte, shift = divmod(i * packing.bits, 8)
        count = -(-(stop - first - i) // 8)
        at = first * packing.bits // 8 + byte
        windows: U64 = np.ndarray((count,), "<u8", data, offset=at, strides=(packing.bits,))
        np.right_shift(windows, np.uint64(shift), out=out[:count, i])
    found: U64 = out.reshape(-1)[start - first : stop - first]
    found &= np.uint64((1 << packing.bits) - 1)
    return found


def unpack_whole(packing: Packing, data: Bytes, start: int, stop: int) -> npt.NDArray[np.integer]:
    """Integers from one place to another of those that were packed in whole bytes, as narrow as they are."""
    if packing.bits in (8, 16, 32, 64) and not packing.low:
        width = packing.bits // 8
        return data[start * width : stop * width].view(f"<u{width}")
    return unpack(packing, data, slice(start, stop))


class Texts:
    """Texts in compressed blocks: a sequence of bytes.

    Parameters
    ----------
    count
        Of texts.
    firsts, ends
        i64[blocks]: the number of each block's first text; where it ends in the data.
    read
        The bytes from one place of the data to another.
    keep
        Blocks that are remembered once they were opened.
    """

    def __init__(
        self,
        count: int,
        firsts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        read: Callable[[int, int], Bytes],
        *,
        keep: int = KEPT_BLOCKS,
    ) -> None:
        self._count = count
        self._firsts: list[int] = firsts.tolist()
        self._ends: list[int] = ends.tolist()
        self._read = read
        self._keep = keep
        self._blocks: dict[int, list[bytes]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> bytes:
        block = bisect_right(self._firsts, i) - 1
        return self.block(block)[i - self._firsts[block]]

    @property
    def blocks(self) -> int:
        return len(self._firsts)

    def first_of(self, block: int) -> int:
        """The number of a block's first text."""
        return self._firsts[block]

    def block_of(self, i: int) -> int:
        """The block that holds a text."""
        return bisect_right(self._firsts, i) - 1

    def extent(self, block: int) -> tuple[int, int]:
        """Where a block lies in the data."""
        return (self._ends[block - 1] if block else 0), self._ends[block]

    def opened(self, number: int) -> tuple[npt.NDArray[np.uint32], bytes]:
        """u32 lengths of the texts of a block, and those one after another."""
        start, end = self.extent(number)
        first = self._firsts[number]
        following = self._firsts[number + 1] if number + 1 < len(self._firsts) else self._count
        if not 0 <= first <= following <= self._count:
            raise ValueError(f"texts {first} to {following} of {self._count} are no block")
        return _opened(self._read(start, end), following - first)

    def block(self, number: int) -> list[bytes]:
        """The texts of a block. One that has to be opened is a step of work that may be stopped."""
        found = self._blocks.get(number)
        if found is None:
            deadline.check()
            lengths, raw = self.opened(number)
            ends = lengths.cumsum(dtype=np.int64).tolist()
            found = [raw[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
            # A copy of the keys, for other threads may change them meanwhile.
            for other in list(self._blocks)[: 1 - self._keep]:
                self._blocks.pop(other, None)
            self._blocks[number] = found
        return found


def pack_texts(
    values: Iterable[bytes], write: Callable[[bytes], object]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Write texts in blocks of some `BLOCK_BYTES`; the ``firsts`` and ``ends`` of `Texts`."""
    firsts, ends = array("q"), array("q")
    some: list[bytes] = []
    first, size, end = 0, 0, 0

    def close() -> None:
        nonlocal first, size, end
        lengths = np.fromiter(map(len, some), dtype="<u4", count=len(some))
        block = zlib.compress(lengths.tobytes() + b"".join(some), LEVEL)
        write(block)
        end += len(block)
        firsts.append(first)
        ends.append(end)
        first, size = first + len(some), 0
        some.clear()

    for value in values:
        some.append(value)
        size += len(value)
        if size >= BLOCK_BYTES:
            close()
    if some:
        close()
    return np.frombuffer(firsts, dtype=np.int64), np.frombuffer(ends, dtype=np.int64)


def _opened(data: Bytes, count: int) -> tuple[npt.NDArray[np.uint32], bytes]:
    """u32 lengths of the texts of a block, and those one after another; no more than a block can hold."""
    inflate, most = zlib.decompressobj(), 4 * count + BLOCK_BYTES + MAX_VALUE_BYTES
    raw = inflate.decompress(data.data, most)
    if not inflate.eof:
        raise ValueError(f"a block of {count} texts is cut off, or has more than {most} bytes")
    lengths, texts = np.frombuffer(raw, dtype="<u4", count=count), raw[4 * count :]
    if int(lengths.sum(dtype=np.uint64)) != len(texts):
        raise ValueError(f"texts of other lengths than a block of {len(texts)} bytes")
    return lengths, texts
