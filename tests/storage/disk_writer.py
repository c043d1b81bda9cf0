"""Processes that tests of the disk cache start, and the object that they read."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final, TypeVar

from crc32c import crc32c

from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import Page, PageCache, ReadTrace
from vecstore.storage.disk import DiskCache
from vecstore.storage.faults import CountingStore
from vecstore.storage.local import LocalStore

S = TypeVar("S", bound=ObjectStore)

KEY: Final = "namespaces/n/parts/p.part"
DATA: Final = random.Random(7).randbytes(4 << 20)
SIZE: Final = 4_000
PAGES: Final = len(DATA) // SIZE


def page(number: int) -> Page:
    return Page("records", number * SIZE, SIZE, crc32c(content(number)))


def content(number: int) -> bytes:
    return DATA[number * SIZE : (number + 1) * SIZE]


def filled(store: S) -> S:
    """The store, with the object in it."""
    store.put_if_absent(KEY, DATA)
    return store


def churn(root: str, folder: str, bound: int, seed: int, started: Any) -> None:
    """Read pages at random, and through them write and evict, until killed."""
    store, rng = LocalStore(root), random.Random(seed)
    cache = PageCache(1 << 20, disk=DiskCache(Path(folder), bound))
    while True:
        cache.refresh()
        numbers = rng.sample(range(PAGES), 20)
        found = cache.read(store, KEY, [page(n) for n in numbers])
        if [data.tobytes() for data in found] != [content(n) for n in numbers]:
            raise AssertionError("a wrong page")
        started.set()


def read_all(root: str, folder: str) -> None:
    """Read every page once, and hold it against the object."""
    store = LocalStore(root)
    cache = PageCache(1 << 20, disk=DiskCache(Path(folder), 2 << 20))
    for start in range(0, PAGES - 50, 50):
        found = cache.read(store, KEY, [page(n) for n in range(start, start + 50)])
        if [data.tobytes() for data in found] != [content(n) for n in range(start, start + 50)]:
            raise AssertionError("a wrong page")
    stats = cache.stats().disk
    if stats is None or not stats.failures:
        raise AssertionError("the disk was not full")


def read_at_once(root: str, folder: str, barrier: Any, results: Any) -> None:
    """Read the same pages as other processes at the same instant; tells how many requests that took."""
    store = CountingStore(LocalStore(root))
    cache = PageCache(1 << 20, disk=DiskCache(Path(folder), 2 << 20))
    trace = ReadTrace()
    barrier.wait(60)
    cache.read(store, KEY, [page(n) for n in range(50, 90)], trace)
    results.put(trace.requests)
