"""The bytes of an input, read as choices."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

# What counts, offsets and lengths break at.
INTERESTING = (
    0, 1, 2, 7, 8, 9, 31, 32, 33, 56, 57, 63, 64, 65, 127, 128, 255, 256, 4095, 4096, 32_767, 65_535, 65_536,
    (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 64, (1 << 32) - 1, 1 << 32, 1 << 40,
    (1 << 53) + 1, (1 << 63) - 64, (1 << 63) - 1, 1 << 63, (1 << 64) - 64, (1 << 64) - 1,
)  # fmt: skip


class Dice:
    """Choices from bytes; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, n: int) -> bytes:
        some = self._data[self._at : self._at + n]
        self._at += n
        return some + bytes(n - len(some))

    def rest(self) -> bytes:
        some, self._at = self._data[self._at :], len(self._data)
        return some

    def byte(self) -> int:
        return self.take(1)[0]

    def short(self) -> int:
        return int(struct.unpack("<H", self.take(2))[0])

    def word(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def long(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def below(self, n: int) -> int:
        """From 0 to before n, which is at least 1."""
        return (self.byte() if n <= 256 else self.short() if n <= 65_536 else self.word()) % n

    def of(self, some: Sequence[T]) -> T:
        return some[self.below(len(some))]

    def integer(self, old: int = 0) -> int:
        """An integer in place of another."""
        kind = self.below(5)
        if kind == 0:
            return self.of(INTERESTING)
        if kind == 1:
            return -self.of(INTERESTING)
        if kind == 2:
            return old + self.byte() - 128
        if kind == 3:
            return old + 64 * (self.byte() - 128)
        return self.long()

    def value(self, old: Any, others: Sequence[Any]) -> Any:
        """JSON in place of other JSON; ``others`` are values found elsewhere."""
        kind = self.below(8)
        if kind < 3 and isinstance(old, int | float) and not isinstance(old, bool):
            return self.integer(int(old) if abs(old) < 1e300 else 0)
        if kind == 3 and others:
            return self.of(others)
        if kind == 4:
            return self.of((None, True, False, [], {}, "", "x" * 300, "\u0000", "\udfff\ud800"[:0], [[]], -1))
        if kind == 5:
            return self.of((1e308, -1e308, 1e-308, 0.5, -0.5, -0.0, 1e40, 1.0000001))
        if kind == 6 and isinstance(old, str):
            at = self.below(len(old) + 1)
            return old[:at] + chr(self.byte()) + old[at + 1 :]
        return self.integer(old if isinstance(old, int) else 0)
