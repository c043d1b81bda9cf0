"""Whether files are still what they were."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vecstore.ext.files import Watch, is_same


def stamp(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@pytest.fixture(params=[0, 1, 3], ids=["none held", "one held", "all held"])
def watch(request: pytest.FixtureRequest) -> Callable[..., Watch]:
    def watched(*paths: Path) -> Watch:
        return Watch([(os.fsencode(path), stamp(path)) for path in paths], request.param)

    return watched


Watching = Callable[..., Watch]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("a", "b", "ü \udcff")]
    for path in found:
        path.write_bytes(b"12345678")
        os.utime(path, ns=(10**18, 10**18 + 1))
    return found


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


def replace(path: Path) -> None:
    beside = path.with_name("beside")
    beside.write_bytes(path.read_bytes())
    os.utime(beside, ns=(10**18, 10**18 + 1))
    beside.replace(path)


def link_to_another(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    path.unlink()
    path.symlink_to(other)


def a_nanosecond_later(path: Path) -> None:
    os.utime(path, ns=(10**18, 10**18 + 2))


def before_the_epoch(path: Path) -> None:
    os.utime(path, ns=(0, -1))


@pytest.mark.parametrize(
    "touch",
    [
        rewrite,
        replace,
        link_to_another,
        a_nanosecond_later,
        before_the_epoch,
        lambda path: os.truncate(path, 3),
        lambda path: os.truncate(path, 9),
        lambda path: os.truncate(path, 0),
    ],
    ids=["write", "replace", "link", "nanosecond", "before 1970", "shorter", "longer", "empty"],
)
def test_a_file_that_somebody_touched_has_changed(
    touch: Callable[[Path], None], files: list[Path], watch: Watching
) -> None:
    watched = watch(*files)
    assert len(watched) == 3
    assert watched.changed() == []
    for number in (2, 0):
        touch(files[number])
        assert watched.changed() == [0, 2][number == 2 :]
    assert watch(*files).changed() == []


def test_a_file_that_is_gone_has_not_changed_and_one_that_came_back_has(
    files: list[Path], watch: Watching
) -> None:
    watched = watch(*files)
    kept = files[0].open("rb")  # so that its inode is not given away
    for path in files:
        path.unlink()
    assert watched.changed() == []
    files[0].write_bytes(b"12345678")
    os.utime(files[0], ns=(10**18, 10**18 + 1))
    assert watched.changed() == [0]
    kept.close()


def test_reading_a_file_and_giving_it_a_second_name_does_not_change_it(
    files: list[Path], watch: Watching
) -> None:
    watched = watch(*files)
    assert files[1].read_bytes() == b"12345678"
    files[1].with_name("second").hardlink_to(files[1])
    files[1].chmod(0o600)
    assert watched.changed() == []
    rewrite(files[1])
    assert watched.changed() == [1]


def test_what_is_held_is_the_file_that_was_noted_and_is_let_go_with_the_watch(files: list[Path]) -> None:
    noted = [(os.fsencode(path), stamp(path)) for path in files]
    replace(files[0])
    before = len(os.listdir("/proc/self/fd"))
    watched = Watch(noted, 2)
    assert watched.held == 2
    assert len(os.listdir("/proc/self/fd")) == before + 2
    assert watched.changed() == [0], "it was replaced before it could be held"
    del watched
    assert len(os.listdir("/proc/self/fd")) == before


def test_times_far_from_now_are_told_apart(files: list[Path], watch: Watching) -> None:
    for seconds in (0, 1, 2**31, 2**33):
        os.utime(files[0], ns=(0, seconds * 10**9))
        watched = watch(files[0])
        assert watched.changed() == []
        os.utime(files[0], ns=(0, seconds * 10**9 + 999_999_999))
        assert watched.changed() == [0]


def test_nothing_watched_is_nothing_changed() -> None:
    assert Watch([]).changed() == []
    assert len(Watch([])) == 0


def test_what_is_no_path_or_state_is_refused(files: list[Path]) -> None:
    with pytest.raises(TypeError):
        Watch([("a", (1, 2, 3))])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        Watch([(b"a", (1, 2))])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        is_same(str(files[0]), 1, 2)  # type: ignore[arg-type]


def test_a_path_leads_to_a_file_until_it_leads_to_another(files: list[Path]) -> None:
    for path in files:
        found, name = path.stat(), os.fsencode(path)
        assert is_same(name, found.st_dev, found.st_ino)
        assert not is_same(name, found.st_dev, found.st_ino + 1)
        assert not is_same(name, found.st_dev + 1, found.st_ino)
        with path.open("rb"):
            replace(path)
            assert not is_same(name, found.st_dev, found.st_ino)
        path.unlink()
        assert not is_same(name, found.st_dev, found.st_ino)
