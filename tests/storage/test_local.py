"""The local store keeps the contract, also between processes, over kills, and read-only."""

from __future__ import annotations

import copy
import errno
import gc
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.storage.contract import Behind, StoreContract, increment
from vecstore.errors import (
    InvalidArgument,
    StorageConflict,
    StorageError,
    StorageFull,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
)
from vecstore.storage.base import ByteRange, ObjectStore
from vecstore.storage.local import LocalStore


class _InFolder(Behind):
    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, data: bytes) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.parent / (path.name + "~")
        beside.write_bytes(data)
        beside.replace(path)

    def read(self, key: str) -> bytes | None:
        path = self._root / key
        return path.read_bytes() if path.is_file() else None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> ObjectStore:
    return LocalStore(root)


@pytest.fixture
def behind(root: Path) -> Behind:
    return _InFolder(root)


def _temporaries(root: Path) -> list[Path]:
    folder = root / ".tmp"
    return [path for path in folder.iterdir() if path.is_file()] if folder.exists() else []


class TestLocalStore(StoreContract):
    def test_nothing_temporary_stays(self, store: ObjectStore, root: Path) -> None:
        etag = store.put_if_absent("a/x", b"1").etag
        store.put_if_match("a/x", b"2", etag)
        with pytest.raises(StorageConflict):
            store.put_if_match("a/x", b"2", "stale")
        with pytest.raises(StorageConflict):
            store.put_stream("a/x", [b"3"])
        assert _temporaries(root) == []
        assert [meta.key for meta in store.list("").objects] == ["a/x"]
        assert store.list_children("") == ("a",)


def test_the_folder_for_temporaries_is_no_key(store: ObjectStore) -> None:
    for key in (".tmp", ".tmp/x"):
        with pytest.raises(InvalidArgument):
            store.put_if_absent(key, b"")
        with pytest.raises(InvalidArgument):
            store.get(key)


def test_an_object_cannot_lie_below_an_object(store: ObjectStore) -> None:
    store.put_if_absent("a", b"")
    with pytest.raises(InvalidArgument, match="object stands where"):
        store.put_if_absent("a/b", b"")
    store.put_if_absent("c/d", b"")
    with pytest.raises(StorageConflict):
        store.put_if_absent("c", b"")


# -- between processes -----------------------------------------------------------------------


def _increment_in_child(root: Path, times: int, start: Any) -> None:
    start.wait()
    increment(LocalStore(root), "counter", times)


def test_a_store_cannot_be_copied_and_loses_no_file_by_the_attempt(root: Path) -> None:
    store = LocalStore(root)
    store.put_if_absent("counter", b"0")
    assert store.get_if_changed("counter", "another") is not None  # it holds the file from now on

    def held() -> list[str]:
        return [fd.name for fd in Path("/proc/self/fd").iterdir() if fd.resolve() == root / "counter"]

    before = held()
    for attempt in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(store)
        gc.collect()
    assert len(before) == 1
    assert held() == before


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_no_increment_of_four_processes_is_lost(root: Path, method: str) -> None:
    store = LocalStore(root)
    store.put_if_absent("counter", b"0")
    context = multiprocessing.get_context(method)
    start = context.Event()
    children = [context.Process(target=_increment_in_child, args=(root, 25, start)) for _ in range(4)]
    for child in children:
        child.start()
    start.set()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert store.get("counter").data == b"100"


def test_a_handle_goes_on_in_a_forked_child_though_its_lock_was_held(root: Path) -> None:
    store = LocalStore(root)
    etag = store.put_if_absent("x", b"1").etag
    assert store.get_if_changed("x", etag) is None
    with store._lock:  # as another thread of the parent might at that moment
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            unchanged = store.get_if_changed("x", etag) is None
            etag = store.put_if_match("x", b"2", etag).etag
            os._exit(0 if unchanged and store.get_if_changed("x", etag) is None else 1)
        assert os.waitpid(child, 0)[1] == 0
    found = store.get_if_changed("x", etag)
    assert found is not None
    assert found.data == b"2"


_WRITER = """
import sys
from vecstore.errors import StorageConflict
from vecstore.storage.local import LocalStore
store = LocalStore(sys.argv[1])
block = bytes(range(256)) * 256
etag = store.head("current").etag
for number in range(10**9):
    store.put_stream(f"parts/{number:06d}", (block for _ in range(20)))
    etag = store.put_if_match("current", b"%d" % number * 10000, etag).etag
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_whole_objects_and_nothing_acknowledged_is_lost(root: Path) -> None:
    store = LocalStore(root)
    store.put_if_absent("current", b"")
    block = bytes(range(256)) * 256
    whole = block * 20
    for round_number in range(4):
        for meta in store.list("parts/").objects:
            store.delete(meta.key)
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(root)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        assert child.stdout is not None
        acknowledged = -1
        for _ in range(2 + round_number):
            acknowledged = int(child.stdout.readline())
        child.kill()
        child.wait()
        acknowledged = int((child.stdout.read().split() or [acknowledged])[-1])
        child.stdout.close()
        keys = [meta.key for meta in store.list("parts/").objects]
        assert keys[: acknowledged + 1] == [f"parts/{n:06d}" for n in range(acknowledged + 1)]
        assert all((root / key).read_bytes() == whole for key in keys)
        current = (root / "current").read_bytes()
        assert current in (b"%d" % acknowledged * 10000, b"%d" % (acknowledged + 1) * 10000)
        # The kernel has freed the dead writer's lock.
        store.put_if_match("current", b"", store.head("current").etag)


def test_only_stale_temporaries_are_swept(root: Path) -> None:
    LocalStore(root).put_if_absent("x", b"")
    old, new = root / ".tmp" / "old", root / ".tmp" / "new"
    for path in (old, new):
        path.write_bytes(b"left")
    long_ago = old.stat().st_mtime - 3601
    os.utime(old, (long_ago, long_ago))
    store = LocalStore(root)
    assert store.get("x").data == b""
    assert old.exists()  # readers remove nothing
    store.put_if_absent("y", b"")
    assert not old.exists()
    assert new.exists()


def test_a_temporary_swept_from_under_a_stalled_writer_is_a_passing_failure(root: Path) -> None:
    store = LocalStore(root)

    def chunks() -> Any:
        yield b"1"
        for path in _temporaries(root):
            path.unlink()

    with pytest.raises(StorageRetryable):
        store.put_stream("a/x", chunks())
    assert store.list("").objects == ()


# -- the cheap check -------------------------------------------------------------------------


def test_an_inode_used_again_is_not_taken_for_no_change(root: Path) -> None:
    """The kernel gives inodes of removed files to new ones; ours is pinned by a descriptor."""
    store = LocalStore(root)
    etag = store.put_if_absent("x", b"1").etag
    behind = _InFolder(root)
    for number in range(50):
        assert store.get_if_changed("x", etag) is None
        (root / "x").unlink()
        behind.write("x", b"%d" % number)
        found = store.get_if_changed("x", etag)
        assert found is not None
        assert found.data == b"%d" % number
        etag = found.meta.etag


def test_the_cheap_check_reads_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(root)
    etag = store.put_if_match("x", b"2", store.put_if_absent("x", b"1").etag).etag

    def refuse(*args: Any) -> Any:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", refuse)
    assert store.get_if_changed("x", etag) is None


def test_what_is_current_is_known_by_a_stat(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = LocalStore(root), LocalStore(root)
    etag = store.put_if_match("a/x", b"2", store.put_if_absent("a/x", b"1").etag).etag
    assert not other.is_current("a/x", etag), "has not read it yet"
    assert other.get_if_changed("a/x", etag) is None
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", None)
        assert store.is_current("a/x", etag)
        assert other.is_current("a/x", etag)
    newer = other.put_if_match("a/x", b"3", etag).etag
    assert other.is_current("a/x", newer)
    for handle in (store, other):
        assert not handle.is_current("a/x", etag)


def test_the_same_bytes_in_a_folder_made_anew_are_read_again(root: Path) -> None:
    store = LocalStore(root)
    etag = store.put_if_absent("a/x", b"1").etag
    for _ in range(20):
        assert store.get_if_changed("a/x", etag) is None
        assert store.is_current("a/x", etag)
        shutil.rmtree(root)
        assert not store.is_current("a/x", etag)
        _InFolder(root).write("a/x", b"1")
        assert not store.is_current("a/x", etag), "an inode used again"


def test_descriptors_are_bounded(root: Path) -> None:
    store = LocalStore(root)
    etags = {f"x{i}": store.put_if_absent(f"x{i}", b"%d" % i).etag for i in range(400)}
    before = len(os.listdir("/proc/self/fd"))
    views = []
    for key, etag in etags.items():
        assert store.get_if_changed(key, etag) is None
        views.append(store.map(key))
    assert len(os.listdir("/proc/self/fd")) - before <= 130
    store.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert bytes(views[-1] or b"") == b"399"


def test_descriptors_of_what_is_watched_are_bounded_and_the_rest_asked_by_path(
    root: Path,
) -> None:
    store = LocalStore(root)
    keys = [f"x{i}" for i in range(200)]
    for key in keys:
        store.put_if_absent(key, b"1")
    stamps = [(key, stamp) for key in keys if (stamp := store.stamp(key)) is not None]
    before = len(os.listdir("/proc/self/fd"))
    first, second = store.watch(stamps), store.watch(stamps)
    assert (first.held, second.held) == (200, 56)
    assert len(os.listdir("/proc/self/fd")) - before == 256
    _InFolder(root).write("x3", b"22")
    _InFolder(root).write("x199", b"22")
    assert first.changed() == second.changed() == [3, 199]
    del first
    assert store.watch(stamps).held == 198, "room that was given back, for files that are as they were noted"
    del second
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mapping_goes_with_its_last_view(root: Path) -> None:
    store = LocalStore(root)
    store.put_if_absent("parts/mapped-object", b"x" * 10_000)

    def mapped() -> bool:
        return "parts/mapped-object" in Path("/proc/self/maps").read_text()

    view = store.map("parts/mapped-object")
    assert view is not None
    tail = view[5000:]
    del view
    assert mapped()
    assert bytes(tail[:1]) == b"x"
    del tail
    assert not mapped()


# -- refusals ----------------------------------------------------------------------------------


def test_a_read_only_folder_can_be_searched(root: Path) -> None:
    """Nothing at all is written by a reader; the modes and times of all folders show it."""
    LocalStore(root).put_if_absent("a/b/x", b"12345")
    subprocess.run(["rm", "-r", str(root / ".tmp")], check=True)
    folders = [path for path in (root, *root.rglob("*")) if path.is_dir()]
    for path in folders:
        path.chmod(0o555)
    times = [path.stat().st_mtime_ns for path in folders]
    try:
        store = LocalStore(root)
        found = store.get("a/b/x")
        assert store.get_if_changed("a/b/x", found.meta.etag) is None
        assert store.head("a/b/x") == found.meta
        assert store.get_ranges("a/b/x", [ByteRange(1, 2)]) == [b"23"]
        assert bytes(store.map("a/b/x") or b"") == b"12345"
        assert len(store.list("").objects) == 1
        assert store.list_children("a/") == ("b",)
        assert [path.stat().st_mtime_ns for path in folders] == times
        assert not (root / ".tmp").exists()
    finally:
        for path in folders:
            path.chmod(0o755)


def test_a_folder_that_does_not_exist_is_empty_and_stays_away(root: Path) -> None:
    store = LocalStore(root)
    assert store.list("").objects == ()
    assert store.list_children("") == ()
    with pytest.raises(StorageMissing):
        store.get("x")
    store.delete("x")
    assert not root.exists()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EACCES, Unauthorised),
        (errno.EPERM, Unauthorised),
        (errno.EROFS, Unauthorised),
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageRetryable),
        (errno.EMFILE, StorageRetryable),
    ],
)
@pytest.mark.parametrize("function", ["fsync", "write", "link", "replace"])
def test_refusals_of_the_filesystem_are_named_and_leave_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError], function: str
) -> None:
    store = LocalStore(root)
    etag = store.put_if_absent("a/x", b"1").etag

    def refuse(*args: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, refuse)
    if function != "replace":
        with pytest.raises(kind, match=os.strerror(number)):
            store.put_if_absent("a/y", b"2")
    if function != "link":
        with pytest.raises(kind, match=os.strerror(number)):
            store.put_if_match("a/x", b"2", etag)
    monkeypatch.undo()
    assert [meta.key for meta in store.list("").objects] == ["a/x"]
    assert store.get("a/x").data == b"1"
    assert _temporaries(root) == []


def test_a_file_that_may_not_grow_is_a_full_store(root: Path, tmp_path: Path) -> None:
    """A real refusal by the kernel: the limit of a file's size."""
    store = LocalStore(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageFull, match="EFBIG"):
            store.put_if_absent("a/x", b"x" * 200_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert store.list("").objects == ()
    assert _temporaries(root) == []


def test_readers_never_see_half_of_a_switch(root: Path) -> None:
    store = LocalStore(root)
    etag = store.put_if_absent("x", b"0" * 50_000).etag
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            data = store.get("x").data
            assert len(data) == 50_000
            seen.update({data[:1], data[-1:]} if data[:1] != data[-1:] else ())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        etag = store.put_if_match("x", b"%d" % (number % 10) * 50_000, etag).etag
    done.set()
    reader.join()
    assert not seen


@pytest.mark.parametrize(
    "sizes", [(1,), (3 << 20,), (1 << 20,) * 5, (5, 2 << 20, 7), (700_001,) * 9, (2 << 20, 0, 1)]
)
def test_files_are_written_by_whole_huge_pages(
    store: ObjectStore, root: Path, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = os.write

    def counted(descriptor: int, data: Any) -> int:
        written.append(write(descriptor, data))
        return written[-1]

    chunks = [os.urandom(size) for size in sizes]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", counted)
        store.put_stream("a/b", chunks)
    assert (root / "a/b").read_bytes() == b"".join(chunks)
    assert all(size % (2 << 20) == 0 for size in written[:-1])


@pytest.mark.parametrize("stranger", ["lost+found/#123", "System Volume/x", "a/b c", "a/\u00fc/d"])
def test_what_others_keep_in_the_folder_under_names_that_are_no_keys_is_not_told_of(
    root: Path, store: ObjectStore, stranger: str
) -> None:
    store.put_if_absent("a/b", b"")
    path = root / stranger
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert [meta.key for meta in store.list("").objects] == ["a/b"]
    assert (store.list_children(""), store.list_children("a/")) == (("a",), ())


def test_a_folder_that_cannot_be_made_is_named_by_whoever_writes() -> None:
    store = LocalStore("/proc/nope")
    for write in (lambda: store.put_if_absent("x", b""), lambda: store.put_if_match("x", b"", "etag")):
        with pytest.raises(
            StorageError, match="/proc/nope, where the store is to be, cannot be made"
        ) as caught:
            write()
        assert not isinstance(caught.value, StorageMissing)


def test_a_folder_that_became_a_file_is_no_empty_store(root: Path, store: ObjectStore) -> None:
    assert store.list_children("") == ()  # it is made with the first write
    root.write_bytes(b"")
    with pytest.raises(StorageError, match=f"{root} is no directory"):
        store.list_children("namespaces/", limit=1)  # as /readyz asks
