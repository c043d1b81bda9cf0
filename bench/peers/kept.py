"""Indexes of other engines that were built before: kept by data set, engine and parameters.

Beside each stands how long it took to build, and how many bytes it came to; a figure of a build that
was kept is of the run that built it. ``--fresh`` builds anew.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an index beside itself."""

    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Where the indexes of one data set are kept."""

    folder: Path
    fresh: bool = False
    small: bool = False

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
            return load(path / "index"), Record(**json.loads(record.read_text()))
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        start = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - start
        save(made, path / "index")
        known = Record(seconds, size(path / "index"))
        record.write_text(json.dumps({"seconds": known.seconds, "bytes": known.bytes}) + "\n")
        return made, known

    def store(self, package: str, label: str, fill: Callable[[Path], Any]) -> tuple[Path, Record]:
        """The folder that ``fill`` fills (a database's own files), or the one that it filled before."""
        path = self.folder / f"{package}-{version(package)}-{label.replace(' ', '_')}"
        record, files = path / "record.json", path / "files"
        if not record.exists() or self.fresh:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            start = time.perf_counter()
            fill(files)
            seconds = time.perf_counter() - start
            record.write_text(json.dumps({"seconds": seconds, "bytes": size(files)}) + "\n")
        return files, Record(**json.loads(record.read_text()))


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
