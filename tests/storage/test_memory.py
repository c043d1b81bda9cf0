"""The memory store keeps the contract, and its clock is the caller's."""

from __future__ import annotations

import numpy as np
import pytest

from tests.storage.contract import Behind, StoreContract
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore


class _InDictionary(Behind):
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def write(self, key: str, data: bytes) -> None:
        self._store._objects[key] = self._store._make(key, data)

    def read(self, key: str) -> bytes | None:
        found = self._store._objects.get(key)
        return None if found is None else found.data


@pytest.fixture
def store() -> ObjectStore:
    return MemoryStore()


@pytest.fixture
def behind(store: MemoryStore) -> Behind:
    return _InDictionary(store)


class TestMemoryStore(StoreContract):
    pass


def test_the_clock_is_the_callers() -> None:
    store = MemoryStore(clock=lambda: 1234.5)
    assert store.now() == 1234.5
    assert store.put_if_absent("x", b"").modified == 1234.5


def test_a_map_is_aligned_like_a_real_one() -> None:
    store = MemoryStore()
    for length in (1, 63, 64, 1000):
        store.put_if_absent(f"x{length}", b"x" * length)
        view = store.map(f"x{length}")
        assert view is not None
        assert np.frombuffer(view, dtype=np.uint8).ctypes.data % 64 == 0
