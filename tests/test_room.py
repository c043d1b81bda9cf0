"""Arrays in memory and in files: the same to whoever uses them, and nothing is left of the files."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vecstore.errors import StorageFull, StorageRetryable
from vecstore.room import IN_MEMORY, Room


def test_an_array_beyond_the_size_lies_in_a_file_without_a_name(tmp_path: Path) -> None:
    room = Room(1_000, str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    small, large = room.empty((250,), np.float32), room.empty((251, 3), np.float32)
    large[:] = np.arange(753).reshape(251, 3)
    assert list(tmp_path.iterdir()) == []
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(tmp_path)) == 1
    assert small.shape == (250,)
    assert large[250].tolist() == [750, 751, 752]
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del large
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_size_everything_is_in_memory(tmp_path: Path) -> None:
    assert IN_MEMORY.empty((1_000, 1_000), np.uint8).shape == (1_000, 1_000)
    assert Room(None, str(tmp_path / "absent")).empty((9,), np.int64).shape == (9,)
    assert Room(0, str(tmp_path / "absent")).empty((0, 9), np.int64).shape == (0, 9)


@pytest.mark.parametrize("largest", [0, None])
def test_rows_are_taken_as_an_index_takes_them(tmp_path: Path, largest: int | None) -> None:
    array = np.arange(60, dtype=np.int32).reshape(20, 3)
    rows = np.array([7, 0, 19, 7])
    found = Room(largest, str(tmp_path)).take(array, rows)
    np.testing.assert_array_equal(found, array[rows])
    assert found.dtype == np.int32
    assert Room(largest, str(tmp_path)).take(array, rows[:0]).shape == (0, 3)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_is_an_error_before_anything_is_written(tmp_path: Path) -> None:
    with files_of_at_most(4_096), pytest.raises(StorageFull, match=str(tmp_path)):
        Room(0, str(tmp_path)).empty((4_097,), np.uint8)


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageRetryable, match="absent"):
        Room(0, str(tmp_path / "absent")).empty((1,), np.uint8)


def test_without_a_folder_files_go_where_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    array = Room(0).empty((1,), np.uint8)
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    del array


@pytest.mark.parametrize("largest", [0, 10, 1_000_000, None])
def test_what_is_spooled_is_an_array_at_the_end(tmp_path: Path, largest: int | None) -> None:
    spool = Room(largest, str(tmp_path)).spool()
    pieces = [np.arange(9), b"", b"12345678", np.empty(0, dtype=np.int64), np.arange(1_000)[::-1].copy()]
    for piece in pieces:
        spool.write(piece)
    assert list(tmp_path.iterdir()) == []
    held = spool.array(np.int64)
    assert spool.size == held.nbytes == 8 * 1_010
    assert held.tobytes() == b"".join(bytes(piece) for piece in pieces)
    assert Room(largest, str(tmp_path)).spool().array(np.uint64).shape == (0,)


def test_a_spool_without_room_is_an_error(tmp_path: Path) -> None:
    spool = Room(0, str(tmp_path)).spool()
    with files_of_at_most(100_000), pytest.raises(StorageFull, match="no room"):
        spool.write(bytes(200_000))
    with pytest.raises(StorageRetryable, match="absent"):
        Room(0, str(tmp_path / "absent")).spool().write(b"x")
