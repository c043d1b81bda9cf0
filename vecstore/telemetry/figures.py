"""Figures of one process, in files that `prometheus_client.multiprocess` reads and adds up.

The library can write them itself, at several times the price (decision 0028), and a search touches sixteen.
Here a figure is a double in a shared map of a file: adding to it is one store, nothing is lost when the
process is killed, and several are added under one lock.

A file begins with the number of bytes in use (i32, padded to 8); an entry is the length of its key (i32), the
key, one to eight spaces so that what follows is aligned to 8, the value, and when it was set (f64 each; only
gauges tell the latter).
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from prometheus_client import utils
from prometheus_client.mmap_dict import mmap_key

_BYTES: Final = 64 << 20  # of a file, which takes what is used of it

Kind = Literal[
    "counter",
    "histogram",
    "gauge_livesum",
    "gauge_livemin",
    "gauge_livemax",
    "gauge_livemostrecent",
    "gauge_max",
]


class Figure:
    """One number: where it is. Change it with `Figures.lock` held."""

    __slots__ = ("at", "doubles")

    def __init__(self, doubles: memoryview[float], at: int) -> None:
        self.doubles = doubles
        self.at = at

    def add(self, by: float) -> None:
        self.doubles[self.at] += by

    def set(self, value: float, now: float) -> None:
        self.doubles[self.at] = value
        self.doubles[self.at + 1] = now


class Spread:
    """A histogram: its sum, and how many were at most each bound. Change it with `Figures.lock` held.

    It knows the places of its figures: a search adds to five, and a call for each number is what that costs.
    """

    __slots__ = ("_bounds", "_counts", "_doubles", "_sum")

    def __init__(self, bounds: tuple[float, ...], counts: list[Figure], total: Figure) -> None:
        self._bounds = bounds
        self._doubles = total.doubles
        self._counts = [count.at for count in counts]
        self._sum = total.at

    def add(self, value: float) -> None:
        doubles = self._doubles
        doubles[self._sum] += value
        doubles[self._counts[bisect_left(self._bounds, value)]] += 1.0


class Figures:
    """The files of one process, in the folder that all of a server have.

    Attributes
    ----------
    lock
        Held while figures are added to or made.
    """

    def __init__(self, folder: Path, process: int) -> None:
        self.lock = threading.Lock()
        self._folder = folder
        self._process = process
        self._files: dict[Kind, _File] = {}

    def figure(
        self, kind: Kind, metric: str, told: str, labels: Mapping[str, str], suffix: str = ""
    ) -> Figure:
        """A number of its own; not to be made twice."""
        file = self._files.get(kind)
        if file is None:
            file = self._files[kind] = _File(self._folder / f"{kind}_{self._process}.db")
        key: str = mmap_key(metric, metric + suffix, list(labels), list(labels.values()), told)
        return file.figure(key)

    def spread(self, metric: str, told: str, labels: Mapping[str, str], bounds: tuple[float, ...]) -> Spread:
        counts = [
            self.figure("histogram", metric, told, {**labels, "le": _shown(bound)}, "_bucket")
            for bound in (*bounds, float("inf"))
        ]
        return Spread(bounds, counts, self.figure("histogram", metric, told, labels, "_sum"))


def _shown(bound: float) -> str:
    """As the library writes it."""
    text: str = utils.floatToGoString(bound)  # type: ignore[no-untyped-call]
    return text


class _File:
    def __init__(self, path: Path) -> None:
        self._doubles: memoryview[float]
        # Not appended to: what is there is of an earlier process of our number.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, _BYTES)
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        self._doubles = memoryview(self._map).cast("d")
        self._used = 8
        self._publish()

    def figure(self, key: str) -> Figure:
        text = key.encode()
        padded = text + b" " * (8 - (len(text) + 4) % 8)
        entry = struct.pack(f"=i{len(padded)}sdd", len(text), padded, 0.0, 0.0)
        self._map[self._used : self._used + len(entry)] = entry
        self._used += len(entry)
        self._publish()
        return Figure(self._doubles, self._used // 8 - 2)

    def _publish(self) -> None:
        self._map[:4] = struct.pack("=i", self._used)
