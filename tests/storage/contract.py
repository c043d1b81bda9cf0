"""What every `ObjectStore` must do. Subclass, and give fixtures that reach behind the store's back."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from vecstore.errors import InvalidArgument, StorageConflict, StorageCorrupt, StorageMissing
from vecstore.storage.base import ByteRange, ObjectStore

Raw = Callable[[str, bytes], None]


class Behind(ABC):
    """Access to what a store holds that does not go through the store."""

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """Create or replace an object, as another program would: atomically."""

    @abstractmethod
    def read(self, key: str) -> bytes | None:
        """The object's bytes; None if there is none."""


def increment(store: ObjectStore, key: str, times: int) -> int:
    """Add 1 to a number ``times`` by compare-and-set; returns how often it lost a race."""
    lost = 0
    for _ in range(times):
        while True:
            seen = store.get(key)
            try:
                store.put_if_match(key, b"%d" % (int(seen.data) + 1), seen.meta.etag)
                break
            except StorageConflict:
                lost += 1
    return lost


class StoreContract:
    """The suite. ``store`` and ``behind`` are fixtures of the subclass's module."""

    #: More than one request's worth where the store knows of such a bound.
    big_bytes = 3 << 20
    increments = 25

    # -- whole objects -----------------------------------------------------------------------

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 300], ids=["empty", "one", "some"])
    def test_what_is_put_is_there_and_comes_back(
        self, store: ObjectStore, behind: Behind, data: bytes
    ) -> None:
        meta = store.put_if_absent("a/b/c.part", data)
        assert behind.read("a/b/c.part") == data
        found = store.get("a/b/c.part")
        assert found.data == data
        assert found.meta.key == meta.key == "a/b/c.part"
        assert found.meta.size == meta.size == len(data)
        assert found.meta.etag == meta.etag
        assert store.head("a/b/c.part") == found.meta

    def test_what_others_put_is_read(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("a/x", b"theirs")
        assert store.get("a/x").data == b"theirs"
        assert store.get("a/x").meta == store.head("a/x")

    def test_what_is_said_to_be_current_is(self, store: ObjectStore, behind: Behind) -> None:
        """False says nothing; True says that no other content is there."""
        assert not store.is_current("a/x", "etag")
        etags = [store.put_if_absent("a/x", b"0").etag]
        for data in (b"1", b"2", b"0"):
            store.get_if_changed("a/x", etags[-1])
            store.is_current("a/x", etags[-1])  # may be true
            behind.write("a/x", data)
            assert not store.is_current("a/x", etags[-1])
            found = store.get_if_changed("a/x", etags[-1])
            assert found is not None
            etags.append(found.meta.etag)
            assert not any(store.is_current("a/x", etag) for etag in etags if etag != etags[-1])
        etags.append(store.put_if_match("a/x", b"3", etags[-1]).etag)
        assert not any(store.is_current("a/x", etag) for etag in etags[:-1])
        store.delete("a/x")
        assert not any(store.is_current("a/x", etag) for etag in etags)

    def test_a_watch_tells_who_was_written_to(self, store: ObjectStore, behind: Behind) -> None:
        keys = ["a/x", "a/y", "a/z"]
        for key in keys:
            behind.write(key, key.encode())
        stamps = [(key, stamp) for key in keys if (stamp := store.stamp(key)) is not None]
        watch = store.watch(stamps)
        if watch is None:
            return
        assert not watch.changed()
        behind.write("a/y", b"longer than it was")
        assert list(watch.changed()) == [1]
        store.delete("a/x")
        assert list(watch.changed()) == [1]

    def test_an_absent_object_is_missing_by_name(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("there/x", b"")
        reads: list[Callable[[str], object]] = [
            store.get,
            store.head,
            lambda key: store.get_if_changed(key, "etag"),
            lambda key: store.get_range(key, 0, 1),
            lambda key: store.get_ranges(key, [ByteRange(0, 1), ByteRange(4, 1)]),
        ]
        for read in reads:
            for key in ("absent", "there/absent", "there", "nowhere/at/all"):
                with pytest.raises(StorageMissing) as caught:
                    read(key)
                assert caught.value.details["object"] == key

    def test_times_are_those_of_the_stores_clock(self, store: ObjectStore) -> None:
        before = store.now()
        store.put_if_absent("x", b"")
        after = store.now()
        # Clocks of stores tell whole seconds, and files' times come from the kernel's last tick.
        assert before - 2 <= store.head("x").modified <= after + 2
        assert abs(before - time.time()) < 60

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a b", "a\\b", "ä", "a\n", "\0"]
    )
    def test_keys_that_are_not_ours_are_refused(self, store: ObjectStore, key: str) -> None:
        for call in (
            store.get,
            store.head,
            store.map,
            store.delete,
            lambda key: store.get_if_changed(key, "x"),
            lambda key: store.get_range(key, 0, 1),
            lambda key: store.get_ranges(key, [ByteRange(0, 1)]),
            lambda key: store.put_if_absent(key, b""),
            lambda key: store.put_if_match(key, b"", "x"),
            lambda key: store.put_stream(key, []),
        ):
            with pytest.raises(InvalidArgument):
                call(key)
        with pytest.raises(InvalidArgument):
            store.get("k" * 2000)

    def test_a_dot_within_a_name_is_allowed(self, store: ObjectStore, behind: Behind) -> None:
        store.put_if_absent("a.b/..c/d..", b"1")
        assert behind.read("a.b/..c/d..") == b"1"
        assert [meta.key for meta in store.list("").objects] == ["a.b/..c/d.."]

    # -- ranges ------------------------------------------------------------------------------

    def test_a_range_is_exact(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("x", b"0123456789")
        assert store.get_range("x", 0, 10) == b"0123456789"
        assert store.get_range("x", 3, 4) == b"3456"
        assert store.get_range("x", 9, 1) == b"9"
        assert store.get_range("x", 4, 0) == b""
        assert store.get_range("x", 10, 0) == b""

    def test_many_ranges_come_back_in_the_order_asked(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("x", bytes(range(250)))
        wanted = [ByteRange(i * 7 % 240, i % 5) for i in range(60)]
        assert [bytes(data) for data in store.get_ranges("x", wanted)] == [
            bytes(range(250))[r.start : r.stop] for r in wanted
        ]
        assert list(store.get_ranges("x", [])) == []

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (500, 20)])
    def test_a_range_beyond_the_end_is_corruption_that_names_the_object(
        self, store: ObjectStore, behind: Behind, start: int, length: int
    ) -> None:
        behind.write("a/x", b"0123456789")
        for read in (
            lambda: store.get_range("a/x", start, length),
            lambda: store.get_ranges("a/x", [ByteRange(0, 1), ByteRange(start, length)]),
        ):
            with pytest.raises(StorageCorrupt) as caught:
                read()
            assert caught.value.details["object"] == "a/x"
            assert caught.value.details["size"] == 10

    def test_a_range_of_an_empty_object(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("x", b"")
        assert store.get_range("x", 0, 0) == b""
        with pytest.raises(StorageCorrupt):
            store.get_range("x", 0, 1)

    def test_backward_ranges_are_refused(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("x", b"01")
        for start, length in ((-1, 1), (0, -1)):
            with pytest.raises(InvalidArgument):
                store.get_range("x", start, length)

    # -- conditions --------------------------------------------------------------------------

    def test_an_existing_object_is_never_created_again(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("x", b"first")
        for data in (b"second", b"first", b""):
            with pytest.raises(StorageConflict):
                store.put_if_absent("x", data)
            with pytest.raises(StorageConflict):
                store.put_stream("x", [data])
        assert behind.read("x") == b"first"

    def test_of_many_creators_one_wins(self, store: ObjectStore, behind: Behind) -> None:
        barrier = threading.Barrier(8)

        def create(number: int) -> int | None:
            barrier.wait()
            try:
                store.put_if_absent("race/x", b"%d" % number)
            except StorageConflict:
                return None
            return number

        with ThreadPoolExecutor(8) as pool:
            won = [number for number in pool.map(create, range(8)) if number is not None]
        assert len(won) == 1
        assert behind.read("race/x") == b"%d" % won[0]

    def test_a_replacement_needs_the_current_etag(self, store: ObjectStore, behind: Behind) -> None:
        first = store.put_if_absent("x", b"1")
        second = store.put_if_match("x", b"2", first.etag)
        assert second.etag != first.etag
        assert store.head("x").etag == second.etag
        for stale in (first.etag, "nonsense", '"nonsense"'):
            with pytest.raises(StorageConflict):
                store.put_if_match("x", b"3", stale)
        assert behind.read("x") == b"2"

    def test_a_replacement_needs_an_object(self, store: ObjectStore, behind: Behind) -> None:
        etag = store.put_if_absent("a/x", b"1").etag
        store.delete("a/x")
        for key in ("a/x", "a/never", "nowhere/x"):
            with pytest.raises(StorageConflict):
                store.put_if_match(key, b"2", etag)
            assert behind.read(key) is None

    def test_a_replacement_sees_what_others_put(self, store: ObjectStore, behind: Behind) -> None:
        mine = store.put_if_absent("x", b"1").etag
        mine = store.put_if_match("x", b"2", mine).etag
        behind.write("x", b"theirs")
        with pytest.raises(StorageConflict):
            store.put_if_match("x", b"3", mine)
        store.put_if_match("x", b"4", store.get("x").meta.etag)
        assert behind.read("x") == b"4"

    def test_no_increment_of_eight_threads_is_lost(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("counter", b"0")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: increment(store, "counter", self.increments), range(8)))
        assert behind.read("counter") == b"%d" % (8 * self.increments)

    # -- get_if_changed ------------------------------------------------------------------------

    def test_unchanged_is_none_however_often_asked(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("x", b"1").etag
        for _ in range(3):
            assert store.get_if_changed("x", etag) is None

    def test_every_change_is_seen(self, store: ObjectStore, behind: Behind) -> None:
        etag = store.put_if_absent("x", b"a").etag
        etags = {etag}
        for data in (b"b", b"c", b"dd", b"e"):  # same size, at once: neither size nor time may decide
            behind.write("x", data)
            found = store.get_if_changed("x", etag)
            assert found is not None
            assert found.data == data
            assert found.meta.etag not in etags
            etag = found.meta.etag
            etags.add(etag)
            assert store.get_if_changed("x", etag) is None

    def test_a_return_to_old_content_is_a_change_from_what_was_seen_last(
        self, store: ObjectStore, behind: Behind
    ) -> None:
        behind.write("x", b"A")
        a = store.get("x").meta.etag
        assert store.get_if_changed("x", a) is None
        behind.write("x", b"B")
        found = store.get_if_changed("x", a)
        assert found is not None
        b = found.meta.etag
        behind.write("x", b"A")
        found = store.get_if_changed("x", b)
        assert found is not None
        assert found.data == b"A"
        with pytest.raises(StorageConflict):
            store.put_if_match("x", b"C", b)

    def test_an_unseen_change_of_which_the_etag_is_unknown_is_read(
        self, store: ObjectStore, behind: Behind
    ) -> None:
        behind.write("x", b"A")
        found = store.get_if_changed("x", "never an etag")
        assert found is not None
        assert found.data == b"A"

    def test_deletion_is_seen(self, store: ObjectStore) -> None:
        etag = store.put_if_absent("x", b"1").etag
        assert store.get_if_changed("x", etag) is None
        store.delete("x")
        with pytest.raises(StorageMissing):
            store.get_if_changed("x", etag)

    def test_a_write_of_our_own_is_a_change(self, store: ObjectStore) -> None:
        first = store.put_if_absent("x", b"1").etag
        assert store.get_if_changed("x", first) is None
        second = store.put_if_match("x", b"2", first).etag
        assert store.get_if_changed("x", second) is None
        found = store.get_if_changed("x", first)
        assert found is not None
        assert found.data == b"2"

    # -- streams -------------------------------------------------------------------------------

    def test_a_stream_becomes_one_object(self, store: ObjectStore, behind: Behind) -> None:
        pieces = [b"ab", b"", memoryview(b"cde"), memoryview(bytearray(b"f"))]
        meta = store.put_stream("a/x", iter(pieces))
        assert behind.read("a/x") == b"abcdef"
        assert meta.size == 6
        assert meta.etag == store.head("a/x").etag
        store.put_stream("a/empty", [])
        assert behind.read("a/empty") == b""

    def test_a_large_stream_becomes_one_object(self, store: ObjectStore, behind: Behind) -> None:
        chunk = bytes(range(256)) * 1037
        count = self.big_bytes // len(chunk) + 1
        meta = store.put_stream("big", (chunk for _ in range(count)))
        assert meta.size == len(chunk) * count
        assert behind.read("big") == chunk * count
        assert store.get("big").meta.etag == meta.etag
        with pytest.raises(StorageConflict):
            store.put_stream("big", (chunk for _ in range(count)))

    @pytest.mark.parametrize("big", [False, True])
    def test_a_stream_that_breaks_leaves_nothing(self, store: ObjectStore, behind: Behind, big: bool) -> None:
        def breaking() -> Iterator[bytes]:
            yield b"x" * (self.big_bytes if big else 10)
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            store.put_stream("a/x", breaking())
        assert behind.read("a/x") is None
        assert store.list("").objects == ()
        store.put_stream("a/x", [b"after all"])
        assert behind.read("a/x") == b"after all"

    # -- deleting and listing --------------------------------------------------------------------

    def test_delete_removes_and_forgives(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("a/x", b"1")
        store.delete("a/x")
        assert behind.read("a/x") is None
        for key in ("a/x", "never", "no/where"):
            store.delete(key)
        store.put_if_absent("a/x", b"2")
        assert behind.read("a/x") == b"2"

    KEYS = ("a-b/x", "a.b", "a/b/c", "a/b0", "a/b-c/d", "a0", "b/1", "b/10", "b/2", "z")

    def test_listing_is_in_key_order_and_by_prefix(self, store: ObjectStore, behind: Behind) -> None:
        for key in reversed(self.KEYS):
            behind.write(key, key.encode())
        for prefix in ("", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "b/1", "z", "nothing", "a-b/y", ".."):
            page = store.list(prefix)
            assert [meta.key for meta in page.objects] == sorted(
                key for key in self.KEYS if key.startswith(prefix)
            )
            assert page.next is None
            assert all(meta.size == len(meta.key) for meta in page.objects)
            assert all(meta.etag in ("", store.head(meta.key).etag) for meta in page.objects)
        with pytest.raises(InvalidArgument):
            store.list("../")
        with pytest.raises(InvalidArgument):
            store.list("", limit=0)

    @pytest.mark.parametrize("limit", [1, 3, 9, 10, 11])
    def test_pages_join_to_the_whole(self, store: ObjectStore, behind: Behind, limit: int) -> None:
        for key in self.KEYS:
            behind.write(key, b"")
        for prefix in ("", "a", "b/"):
            seen: list[str] = []
            after: str | None = None
            while True:
                page = store.list(prefix, after=after, limit=limit)
                assert len(page.objects) <= limit
                seen += [meta.key for meta in page.objects]
                if page.next is None:
                    break
                after = page.next
            assert seen == sorted(key for key in self.KEYS if key.startswith(prefix))

    @pytest.mark.parametrize("after", ["", "a", "a-b", "a/", "a/b", "a/b/c", "a/b/d", "a/zzz", "b", "zz"])
    def test_a_listing_starts_after_any_string(self, store: ObjectStore, behind: Behind, after: str) -> None:
        for key in self.KEYS:
            behind.write(key, b"")
        assert [meta.key for meta in store.list("", after=after).objects] == sorted(
            key for key in self.KEYS if key > after
        )

    CHILDREN = ("a", "a-1", "a-1.b", "a-b-c", "a.b", "a0", "b", "b-", "c")

    def test_children_are_folders_in_order_of_their_names(self, store: ObjectStore, behind: Behind) -> None:
        for name in self.CHILDREN:
            behind.write(f"top/{name}/deep/x", b"")
        behind.write("top/0-leaf", b"")
        behind.write("top/b-leaf", b"")
        behind.write("topmost/x", b"")
        assert store.list_children("top/") == tuple(sorted(self.CHILDREN))
        assert store.list_children("") == ("top", "topmost")
        assert store.list_children("nowhere/") == ()
        for limit in range(1, 11):
            for after in (None, *self.CHILDREN, "a-1.", "bb"):
                assert (
                    store.list_children("top/", after=after, limit=limit)
                    == tuple(sorted(c for c in self.CHILDREN if after is None or c > after))[:limit]
                )
        with pytest.raises(InvalidArgument):
            store.list_children("top")

    def test_a_folder_without_objects_is_no_child(self, store: ObjectStore) -> None:
        store.put_if_absent("top/gone/deep/x", b"")
        store.put_if_absent("top/stays/x", b"")
        store.delete("top/gone/deep/x")
        assert store.list_children("top/") == ("stays",)

    # -- mapping -------------------------------------------------------------------------------

    def test_a_map_is_the_whole_object_and_outlives_it(self, store: ObjectStore, behind: Behind) -> None:
        for key, data in (("a/x", bytes(range(256)) * 100), ("a/empty", b"")):
            behind.write(key, data)
            view = store.map(key)
            if view is None:
                return
            assert view.readonly
            assert view.format == "B"
            store.delete(key)
            assert bytes(view) == data
        with pytest.raises(StorageMissing):
            store.map("absent")

    def test_a_stamp_changes_with_what_a_map_shows(self, store: ObjectStore, behind: Behind) -> None:
        behind.write("a/x", b"before")
        view, stamp = store.map("a/x"), store.stamp("a/x")
        assert store.stamp("a/x") == stamp
        behind.write("a/x", b"and after")
        if stamp is not None:
            assert store.stamp("a/x") != stamp
        elif view is not None:
            assert bytes(view) == b"before", "what cannot be told may not show"
        store.delete("a/x")
        assert store.stamp("a/x") is None

    # -- the handle ------------------------------------------------------------------------------

    def test_close_can_be_repeated(self, store: ObjectStore) -> None:
        store.put_if_absent("x", b"")
        store.close()
        store.close()

    def test_the_url_names_the_store_and_no_secret(self, store: ObjectStore) -> None:
        assert "://" in store.url
        assert "testing" not in store.url
