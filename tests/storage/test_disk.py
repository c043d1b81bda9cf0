"""The disk cache: shared by processes, bounded, and whatever becomes of its files, never a wrong byte."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from crc32c import crc32c
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.storage import disk_writer
from tests.storage.disk_writer import DATA, KEY, PAGES, SIZE, content, filled, page
from vecstore.errors import InvalidArgument, StorageCorrupt
from vecstore.storage.cache import Page, PageCache, ReadTrace
from vecstore.storage.disk import DiskCache
from vecstore.storage.faults import CountingStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore

BOUND = 2 << 20  # of the disk; the object is larger


@pytest.fixture
def store() -> CountingStore:
    return CountingStore(filled(MemoryStore("the object")))


def cache(folder: Path, bound: int = BOUND, *, memory: int = 1 << 20) -> PageCache:
    """What a process has that comes to the folder: nothing in memory."""
    return PageCache(memory, disk=DiskCache(folder, bound))


def read(cache: PageCache, store: Any, numbers: Sequence[int], trace: ReadTrace | None = None) -> None:
    """Read pages and hold them against the object."""
    found = cache.read(store, KEY, [page(n) for n in numbers], trace)
    for number, data in zip(numbers, found, strict=True):
        assert data.tobytes() == content(number)
        assert data.ctypes.data % 64 == 0
        assert not data.flags.writeable


def size_of(folder: Path) -> int:
    """Bytes of the disk that a folder takes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))


def test_what_one_process_fetched_another_reads_from_disk(store: CountingStore, tmp_path: Path) -> None:
    first, second = ReadTrace(), ReadTrace()
    read(cache(tmp_path), store, [3, 1, 70], first)
    assert (first.disk_hits, first.cache_misses, first.trips) == (0, 3, 1)
    other = cache(tmp_path)
    read(other, store, [70, 3, 1], second)
    assert second == ReadTrace(disk_hits=3)
    read(other, store, [70, 3, 1], second)
    assert second == ReadTrace(disk_hits=3, cache_hits=3)
    assert store.count("get_ranges") == 1


def test_only_what_the_disk_lacks_is_fetched(store: CountingStore, tmp_path: Path) -> None:
    read(cache(tmp_path), store, [5, 6])
    trace = ReadTrace()
    read(cache(tmp_path), store, [4, 5, 6, 7], trace)
    assert (trace.disk_hits, trace.cache_misses, trace.trips) == (2, 2, 1)
    assert trace.bytes <= 4 * SIZE


def test_pages_of_the_disk_take_no_memory_of_the_process(store: CountingStore, tmp_path: Path) -> None:
    mapped = cache(tmp_path)
    read(mapped, store, range(40))
    assert mapped.stats().bytes == 40 * 512
    assert mapped.stats().disk is not None
    assert mapped.stats().disk.pages == 40


def test_the_disk_is_bounded_and_pages_in_hand_stay_valid(store: CountingStore, tmp_path: Path) -> None:
    pages = cache(tmp_path)
    rng = random.Random(2)
    held: list[tuple[int, Any]] = []
    for _ in range(30):
        numbers = rng.sample(range(PAGES), 40)
        held += zip(numbers, pages.read(store, KEY, [page(n) for n in numbers]), strict=True)
        # The index is counted with the pages; a journal is there only during a write.
        assert size_of(tmp_path) <= BOUND + (128 << 10)
    stats = pages.stats().disk
    assert stats is not None
    assert stats.bytes <= BOUND
    assert stats.evictions > 100
    assert all(data.tobytes() == content(number) for number, data in held)


def test_what_was_evicted_is_let_go_by_those_who_have_it_mapped(store: CountingStore, tmp_path: Path) -> None:
    idle, busy = cache(tmp_path), cache(tmp_path)
    read(idle, store, range(10))
    assert idle.refresh() == 0
    for start in range(20, PAGES - 20, 20):
        read(busy, store, range(start, start + 20))
    deleted = [line for line in Path("/proc/self/maps").read_text().splitlines() if "(deleted)" in line]
    assert any(str(tmp_path) in line for line in deleted)
    assert idle.refresh() == 1
    busy.refresh()
    assert idle.stats().pages == 0
    deleted = [line for line in Path("/proc/self/maps").read_text().splitlines() if "(deleted)" in line]
    assert not any(str(tmp_path) in line for line in deleted)
    read(idle, store, range(10))


def test_a_scan_does_not_drive_out_what_was_asked_for_again(store: CountingStore, tmp_path: Path) -> None:
    hot = range(30)
    for _ in range(2):
        read(cache(tmp_path), store, hot)
    scanner = cache(tmp_path)
    for start in range(30, PAGES - 20, 20):
        read(scanner, store, range(start, start + 20))
    trace = ReadTrace()
    read(cache(tmp_path), store, hot, trace)
    assert trace.disk_hits == len(hot)


def test_a_use_in_memory_counts_on_disk(store: CountingStore, tmp_path: Path) -> None:
    """Pages that a process has in hand are asked for there no more; the second use is passed on."""
    user = cache(tmp_path)
    for _ in range(3):
        read(user, store, range(30))
    scanner = cache(tmp_path)
    for start in range(30, PAGES - 20, 20):
        read(scanner, store, range(start, start + 20))
    trace = ReadTrace()
    read(cache(tmp_path), store, range(30), trace)
    assert trace.disk_hits == 30


def test_another_working_set_finds_room(store: CountingStore, tmp_path: Path) -> None:
    for first in (0, 600):
        for _ in range(6):
            user = cache(tmp_path)
            for start in range(first, first + 240, 20):
                read(user, store, range(start, start + 20))
    trace = ReadTrace()
    read(cache(tmp_path), store, range(600, 840), trace)
    assert trace.disk_hits >= 200


def test_a_page_too_large_for_the_disk_is_served_all_the_same(store: CountingStore, tmp_path: Path) -> None:
    wanted = Page("records", 0, BOUND // 4, crc32c(DATA[: BOUND // 4]))
    pages = cache(tmp_path, memory=0)
    for _ in range(2):
        assert pages.read(store, KEY, [wanted])[0].tobytes() == DATA[: BOUND // 4]
    assert store.count("get_ranges") == 2


def test_a_smaller_bound_holds_from_the_next_start(store: CountingStore, tmp_path: Path) -> None:
    read(cache(tmp_path), store, range(400))
    smaller = cache(tmp_path, BOUND // 2)
    read(smaller, store, [0])
    assert smaller.stats().disk is not None
    assert smaller.stats().disk.bytes <= BOUND // 2
    assert size_of(tmp_path) <= BOUND // 2 + (160 << 10)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="cache_dir") as caught:
        DiskCache(tmp_path / "file" / "below", BOUND)
    assert caught.value.details["field"] == "cache_dir"


# -- damage --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Damage:
    """Something done to a file of the cache; which and where are shares of what there is."""

    which: float
    kind: str
    where: tuple[float, ...]

    def do(self, folder: Path) -> None:
        files = sorted(
            (p for p in folder.rglob("*") if p.is_file()), key=lambda p: (p.parent, p.stat().st_ino)
        )
        path = files[int(self.which * len(files))]
        size = path.stat().st_size
        if self.kind == "remove":
            path.unlink()
        elif self.kind == "flip":
            with path.open("r+b") as file:
                for at in self.where:
                    file.seek(int(at * size))
                    byte = file.read(1) or b"\0"
                    file.seek(int(at * size))
                    file.write(bytes([byte[0] ^ 0x41]))
        elif self.kind == "cut":
            os.truncate(path, int(self.where[0] * size))
        elif self.kind == "garbage":
            path.write_bytes(random.Random(size).randbytes(min(size, 50_000)))
        else:
            shutil.rmtree(path.parent)


SHARE = st.floats(0, 1, exclude_max=True)
DAMAGES = st.builds(
    Damage,
    SHARE,
    st.sampled_from(["flip", "flip", "cut", "remove", "garbage", "folder"]),
    st.lists(SHARE, min_size=20, max_size=20).map(tuple),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(mkdtemp(prefix="vecstore-disk-"))
    yield made
    shutil.rmtree(made)


@settings(max_examples=30, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(damages=st.lists(DAMAGES, min_size=3, max_size=3))
def test_whatever_becomes_of_the_files_pages_are_what_the_object_holds(
    damages: list[Damage], folder: Path
) -> None:
    place = folder / "cache"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    inner = filled(MemoryStore("the object"))
    live = cache(place)
    read(live, inner, range(60))
    for start, damage in zip((0, 30, 60), damages, strict=True):
        damage.do(place)
        for pages in (live, cache(place)):
            pages.refresh()  # as whoever opens a view does
            read(pages, inner, range(start, start + 45))
    # It heals: what was read is there for the next, or, where a read met damage that those before it
    # had not touched and the index was started over, for the one after that.
    hits = []
    while len(hits) < 3 and hits[-1:] != [45]:
        trace = ReadTrace()
        read(cache(place), inner, range(60, 105), trace)
        hits.append(trace.disk_hits)
    assert hits[-1] == 45, hits


def test_a_damaged_page_is_dropped_and_fetched_again(store: CountingStore, tmp_path: Path) -> None:
    read(cache(tmp_path), store, range(8))
    (segment,) = (tmp_path / "segments").iterdir()
    with segment.open("r+b") as file:
        at = file.read().index(content(5)[:64])
        file.seek(at + 100)
        file.write(b"\0\1\2\3")
    trace = ReadTrace()
    pages = cache(tmp_path)
    read(pages, store, range(8), trace)
    assert (trace.disk_hits, trace.cache_misses) == (7, 1)
    assert pages.stats().disk is not None
    assert pages.stats().disk.damaged == 1
    trace = ReadTrace()
    read(cache(tmp_path), store, range(8), trace)
    assert trace.disk_hits == 8


def test_a_strangers_write_to_a_mapped_page_is_noticed(store: CountingStore, tmp_path: Path) -> None:
    pages = cache(tmp_path)
    read(pages, store, range(8))
    assert pages.refresh() == 0
    (segment,) = (tmp_path / "segments").iterdir()
    with segment.open("r+b") as file:
        file.seek(100)
        file.write(b"\0\1\2\3")
    assert pages.refresh() == 1
    read(pages, store, range(8))


def test_our_own_writes_disturb_nobody(store: CountingStore, tmp_path: Path) -> None:
    one, other = cache(tmp_path), cache(tmp_path)
    read(one, store, [0])
    read(other, store, [0])
    for n in range(1, 6):
        read(other, store, [n])
        assert one.refresh() == 0
        assert other.refresh() == 0


def test_damage_of_the_object_itself_is_named_and_never_kept(tmp_path: Path) -> None:
    inner = MemoryStore("the object")
    bad = bytearray(DATA)
    bad[7 * SIZE + 5] ^= 1
    inner.put_if_absent(KEY, bytes(bad))
    for _ in range(2):
        with pytest.raises(StorageCorrupt, match="'records' fails its checksum"):
            cache(tmp_path).read(inner, KEY, [page(6), page(7), page(8)])
    trace = ReadTrace()
    read(cache(tmp_path), inner, [6, 8], trace)
    assert trace.disk_hits == 2


def test_a_full_disk_costs_requests_and_no_answers(
    tmp_path: Path,
) -> None:
    """The kernel's own refusal: files of this process may not grow beyond a limit."""
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (16384, 16384));"
        "from tests.storage import disk_writer; disk_writer.read_all(*__import__('sys').argv[1:])"
    )
    root = tmp_path / "store"
    filled(LocalStore(root))
    subprocess.run([sys.executable, "-c", code, str(root), str(tmp_path / "cache")], check=True, timeout=60)


# -- many processes --------------------------------------------------------------------------------


def test_a_kill_at_any_instant_leaves_nothing_that_is_served_wrongly(tmp_path: Path) -> None:
    root, place = tmp_path / "store", tmp_path / "cache"
    inner = filled(LocalStore(root))
    rng = random.Random(11)
    spawn = multiprocessing.get_context("spawn")
    started = [spawn.Event() for _ in range(3)]
    writers = [
        spawn.Process(target=disk_writer.churn, args=(str(root), str(place), BOUND, seed, started[seed]))
        for seed in range(3)
    ]
    for writer in writers:
        writer.start()
    for event in started:
        assert event.wait(60)
    pages = cache(place)
    for writer in rng.sample(writers, len(writers)):
        pages.refresh()
        read(pages, inner, rng.sample(range(PAGES), 20))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(30)
        assert writer.exitcode == -signal.SIGKILL
        read(cache(place), inner, rng.sample(range(PAGES), 40))
    last = cache(place)
    for start in range(0, PAGES - 20, 20):
        read(last, inner, range(start, start + 20))
    # What a kill left behind is swept, too.
    assert size_of(place) <= BOUND + (128 << 10)
    trace = ReadTrace()
    read(cache(place), inner, range(PAGES - 40, PAGES - 20), trace)
    assert trace.disk_hits == 20


def test_processes_that_want_the_same_at_once_fetch_it_once(tmp_path: Path) -> None:
    root, place = tmp_path / "store", tmp_path / "cache"
    filled(LocalStore(root))
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(3), spawn.Queue()
    readers = [
        spawn.Process(target=disk_writer.read_at_once, args=(str(root), str(place), barrier, results))
        for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    requests = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join(30)
        assert reader.exitcode == 0
    assert sorted(requests) == [0, 0, 1]


def test_threads_and_caches_at_random_get_what_they_asked_for(store: CountingStore, tmp_path: Path) -> None:
    shared = [cache(tmp_path, memory=30 * SIZE), cache(tmp_path, memory=0)]
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for _ in range(10):
                pages = shared[seed % 2]
                pages.refresh()
                read(pages, store, rng.sample(range(PAGES), 12))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_a_forked_child_uses_the_same_disk(store: CountingStore, tmp_path: Path) -> None:
    pages = cache(tmp_path)
    read(pages, store, range(10))
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        trace = ReadTrace()
        read(pages, store, range(10), trace)
        os._exit(0 if trace == ReadTrace(disk_hits=10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    read(pages, store, range(10, 20))
    trace = ReadTrace()
    read(cache(tmp_path), store, range(20), trace)
    assert trace.disk_hits == 20


@settings(max_examples=25, deadline=None)
@given(
    bound=st.integers(1 << 20, 2 << 20),
    memory=st.integers(0, 40_000),
    reads=st.lists(
        st.lists(st.tuples(st.integers(0, 900_000), st.integers(0, 9_000)), max_size=30), max_size=20
    ),
)
def test_whatever_is_asked_is_what_the_object_holds(
    bound: int, memory: int, reads: list[list[tuple[int, int]]], folder: Path
) -> None:
    place = folder / "asked"
    shutil.rmtree(place, ignore_errors=True)
    inner = filled(MemoryStore("the object"))
    pages = cache(place, bound, memory=memory)
    for number, asked in enumerate(reads):
        if number % 7 == 6:
            pages = cache(place, bound, memory=memory)
        wanted = [Page("s", start, n, crc32c(DATA[start : start + n])) for start, n in asked]
        trace = ReadTrace()
        found = pages.read(inner, KEY, wanted, trace)
        assert [d.tobytes() for d in found] == [DATA[start : start + n] for start, n in asked]
        assert trace.cache_hits + trace.disk_hits + trace.cache_misses == len(set(wanted))
        assert trace.trips == (1 if trace.cache_misses else 0)
    stats = pages.stats()
    assert stats.bytes <= memory
    assert stats.disk is not None
    assert stats.disk.bytes <= bound
    assert stats.disk.failures == stats.disk.damaged == 0


def test_names_are_those_of_one_store_and_object(tmp_path: Path) -> None:
    """The same place of another object, or of another store, is another page."""
    for url in ("a", "b"):
        store = MemoryStore(url)
        store.put_if_absent(KEY, DATA if url == "a" else DATA[::-1])
        body = DATA if url == "a" else DATA[::-1]
        found = cache(tmp_path).read(store, KEY, [Page("s", 0, SIZE, crc32c(body[:SIZE]))])
        assert found[0].tobytes() == body[:SIZE]
