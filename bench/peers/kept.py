"""Indexes of other engines that were built before: kept by data set, engine and parameters.

Beside each stands how long it took to build, by the wall and by the processor, and how many bytes it
came to; a figure of a build that was kept is of the run that built it. ``--fresh`` builds anew.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an index beside itself; ``seconds`` by the clock that was asked for."""

    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Seconds since it was made, by both clocks."""

    wall: float = field(default_factory=time.perf_counter)
    cpu: float = field(default_factory=time.process_time)

    def read(self) -> dict[str, float]:
        """By name of the clock."""
        return {"wall": time.perf_counter() - self.wall, "cpu": time.process_time() - self.cpu}


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the indexes of one data set are kept."""

    folder: Path
    fresh: bool = False
    small: bool = False
    clock: str = "wall"

    def choose(self, forms: Sequence[T]) -> Sequence[T]:
        """Of the forms of an engine's index those to build: all, or in the small mode the first."""
        return forms[:1] if self.small else forms

    def index(
        self,
        package: str,
        label: str,
        make: Callable[[], T],
        save: Callable[[T, Path], Any],
        load: Callable[[Path], T],
    ) -> tuple[T, Record]:
        """The index that ``make`` builds, or the one that it built before.

        ``save`` and ``load`` move it to and from a path; ``bytes`` is what ``save`` wrote.
        """
        path = self.folder / f"{package}-{version(package)}-{label.replace(' ', '_')}"
        record = path / "record.json"
        if record.exists() and not self.fresh:
            return load(path / "index"), self._read(record)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        watch = Stopwatch()
        made = make()
        seconds = watch.read()
        save(made, path / "index")
        record.write_text(json.dumps(seconds | {"bytes": size(path / "index")}) + "\n")
        return made, self._read(record)

    def store(self, package: str, label: str, fill: Callable[[Path], Any]) -> tuple[Path, Record]:
        """The folder that ``fill`` fills (a database's own files), or the one that it filled before."""
        path = self.folder / f"{package}-{version(package)}-{label.replace(' ', '_')}"
        record, files = path / "record.json", path / "files"
        if not record.exists() or self.fresh:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            watch = Stopwatch()
            fill(files)
            record.write_text(json.dumps(watch.read() | {"bytes": size(files)}) + "\n")
        return files, self._read(record)

    def _read(self, record: Path) -> Record:
        told = json.loads(record.read_text())
        return Record(told[self.clock], told["bytes"])


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
