"""Which pages stay in memory: a segmented LRU, bounded in bytes, that a scan cannot flush.

Not thread-safe: `vecstore.storage.cache` holds a lock. Imports nothing of the package but types.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Final, Generic, NamedTuple, TypeVar

from vecstore.storage.buffers import Bytes

K = TypeVar("K", bound=Hashable)

ENTRY_BYTES: Final = 512  # of memory that a page takes beside its content
_PROTECTED_SHARE: Final = 0.8  # of the bound that pages used more than once may take
_PROTECTED_AGE: Final = 4  # times the bound admitted since a page was last used


class Held(NamedTuple):
    """A page in memory.

    Attributes
    ----------
    segment
        Of the disk cache that it is mapped from; None if the memory is our own.
    """

    data: Bytes
    segment: int | None

    @property
    def charge(self) -> int:
        """Bytes of memory that are this process's alone."""
        return ENTRY_BYTES + (int(self.data.nbytes) if self.segment is None else 0)


class RecentPages(Generic[K]):
    """Pages by name.

    Pages used once compete among themselves only, so that a scan does not drive out those in use;
    those no longer in use age, so that another working set finds room.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._once: OrderedDict[K, Held] = OrderedDict()
        self._again: OrderedDict[K, tuple[Held, int]] = OrderedDict()  # with `_admitted` at its use
        self._again_bytes = 0
        self._admitted = 0  # bytes so far: the clock by which pages age

    def __len__(self) -> int:
        return len(self._once) + len(self._again)

    def __contains__(self, name: K) -> bool:
        return name in self._once or name in self._again

    def touch(self, name: K) -> tuple[Held, bool] | None:
        """A page and whether this is its second use; None if it is not here."""
        protected = self._again.get(name)
        if protected is not None:
            self._again[name] = (protected[0], self._admitted)
            self._again.move_to_end(name)
            return protected[0], False
        held = self._once.pop(name, None)
        if held is None:
            return None
        self._again[name] = (held, self._admitted)
        self._again_bytes += held.charge
        while self._again_bytes > self.max_bytes * _PROTECTED_SHARE and len(self._again) > 1:
            self._demote()
        return held, True

    def admit(self, name: K, held: Held) -> int:
        """Keep a page unless it exceeds the bound alone; how many others had to go."""
        if held.charge > self.max_bytes or name in self:
            return 0
        self.bytes += held.charge
        self._admitted += held.charge
        evicted = 0
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._again.values()), None)
            if oldest is not None and (
                not self._once or self._admitted - oldest[1] > _PROTECTED_AGE * self.max_bytes
            ):
                self._demote()
            _, old = self._once.popitem(last=False)
            self.bytes -= old.charge
            evicted += 1
        self._once[name] = held
        return evicted

    def forget(self, segments: Collection[int]) -> None:
        """Let go of all that is mapped from these segments."""
        for name in [name for name, held in self._once.items() if held.segment in segments]:
            self.bytes -= self._once.pop(name).charge
        for name in [name for name, (held, _) in self._again.items() if held.segment in segments]:
            charge = self._again.pop(name)[0].charge
            self._again_bytes -= charge
            self.bytes -= charge

    def _demote(self) -> None:
        name, (held, _) = self._again.popitem(last=False)
        self._again_bytes -= held.charge
        self._once[name] = held
