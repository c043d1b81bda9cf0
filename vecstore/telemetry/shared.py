"""The folder in which the processes of a server keep their figures, so that any of them can tell all.

Each figure lies in a shared map of a file of its process (`vecstore.telemetry.figures`), so nothing is lost
with one that is killed. What processes that have ended left is added up into one file here, so that files do
not grow in number with every worker ever started.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

VARIABLE: Final = "VECSTORE_FIGURES"  # tells processes that a server starts where the folder is
_PREFIX: Final = "vecstore-metrics-"
_ALIVE: Final = "alive"
_ENDED: Final = "ended"  # stands for a process in the name of a file
_FILE: Final = re.compile(r"(?P<kind>.+)_(?P<process>[0-9]+)\.db")
_ADDED: Final[dict[str, Callable[[float, float], float]]] = {
    "counter": float.__add__,
    "histogram": float.__add__,
    "gauge_max": max,
}


def share(folder: str = "") -> Path:
    """Have this process and those that it starts keep their figures in a folder; made if need be.

    Without a name it is a new one, or that of whoever started us. What processes left behind that live no
    longer is dropped: figures begin with a server.
    """
    inherited = os.environ.get(VARIABLE)
    if folder:
        path = Path(folder)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _drop_ended(path)
    elif inherited is not None:
        path = Path(inherited)
    else:
        above = Path("/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir())  # noqa: S108  # nosec B108
        for other in above.glob(f"{_PREFIX}*"):
            if _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=above))
    os.environ[VARIABLE] = str(path)
    # Held until this process ends, however it does, and by all that it forks: see `_is_left`.
    fcntl.flock(os.open(path / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), fcntl.LOCK_SH)
    return path


def shared() -> Path | None:
    """The folder of this process, if it shares its figures."""
    found = os.environ.get(VARIABLE)
    return Path(found) if found else None


def retire(process: int) -> None:
    """Add the figures of a process that has ended to those of all that have."""
    folder = shared()
    if folder is None or not folder.is_dir():
        return
    with locked(folder, fcntl.LOCK_EX):
        for file in folder.glob(f"*_{process}.db"):
            kind = file.name.removesuffix(f"_{process}.db")
            if kind in _ADDED:
                _add(file, folder / f"{kind}_{_ENDED}.db", _ADDED[kind])
            file.unlink(missing_ok=True)


def remove() -> None:
    """Remove the folder if it is one that `share` made without a name."""
    folder = shared()
    if folder is not None and folder.name.startswith(_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(folder: Path, how: int = fcntl.LOCK_SH) -> Iterator[None]:
    """Keeps those who read all files from those who move figures between them."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _add(source: Path, target: Path, added: Callable[[float, float], float]) -> None:
    from prometheus_client import mmap_dict

    files: Any = mmap_dict.MmapedDict  # which has no types
    sums = files(str(target))
    try:
        for key, value, _, _ in files.read_all_values_from_file(str(source)):
            before, _ = sums.read_value(key)
            sums.write_value(key, added(before, value), 0.0)
    finally:
        sums.close()


def _drop_ended(folder: Path) -> None:
    """Remove the files of processes that live no longer."""
    with locked(folder, fcntl.LOCK_EX):
        for file in folder.glob("*.db"):
            found = _FILE.fullmatch(file.name)
            if found is None or not _lives(int(found["process"])):
                file.unlink(missing_ok=True)


def _is_left(folder: Path) -> bool:
    """Whether all that used a folder were killed before they could remove it."""
    try:
        descriptor = os.open(folder / _ALIVE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False  # just being made, or somebody else's
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def _lives(process: int) -> bool:
    with suppress(ProcessLookupError):
        try:
            os.kill(process, 0)
        except PermissionError:
            return True
        return True
    return False
