"""Copies between stores: whole, incremental, atomic at the target, and never over what was written there."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import vecstore
from tests.core import CODED, EXACT, clustered, database, generator
from vecstore.api import Database, copy_store
from vecstore.cli import main
from vecstore.errors import (
    InvalidArgument,
    NamespaceNotFound,
    StorageCorrupt,
    StorageMissing,
    StorageRetryable,
    Unauthorised,
    VecstoreError,
)
from vecstore.invariants import check_namespace
from vecstore.maintenance import copying
from vecstore.maintenance.gc import collect
from vecstore.maintenance.verify import verify
from vecstore.manifest import history
from vecstore.manifest.keys import current_key, history_key, part_key
from vecstore.storage.base import ObjectMeta, ObjectStore
from vecstore.storage.faults import CountingStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import CopiedNamespace

DIM = 8
ROWS = clustered(generator(3), 1_200, DIM)
QUERIES = clustered(generator(4), 2, DIM)


def filled(store: ObjectStore) -> Database:
    """Namespaces with everything that a namespace can have."""
    db = database(store)
    ns = db.create_namespace("docs", DIM, "l2", list_rows=16, **CODED)
    kind = [("odd", "even")[i % 2] for i in range(400)]
    ns.insert(ROWS[:400], range(400), attributes={"kind": kind, "n": list(range(400))})
    ns.delete(range(0, 100, 3))
    ns.tag("first")
    ns.insert(ROWS[400:600], range(300, 500))
    ns.patch([301, 302], {"n": [1_000, None]})
    ns.tag("second")
    ns.compact()
    ns.delete(filter=["n", "Lt", 20])
    branch = ns.branch("branch")
    branch.insert(ROWS[600:650], range(600, 650))
    branch.delete(range(100, 110))
    names = db.create_namespace("names", DIM, "cosine", **CODED, store_vectors="none")
    names.insert(ROWS[650:900], [f"row {i}" for i in range(250)])
    db.create_namespace("assigned", DIM, "dot").insert(ROWS[900:950])
    db.create_namespace("empty", DIM)
    db.create_namespace("gone", DIM).insert(ROWS[:5])
    db.delete_namespace("gone")
    return db


def answers(db: Database) -> dict[str, Any]:
    """Of everything that can be asked; ids of epochs are each store's own."""
    found: dict[str, Any] = {}
    for info in db.namespaces():
        ns = db.namespace(info.name)
        has_vectors = info.defaults["store_vectors"] != "none"
        effort = EXACT if has_vectors else {"probe_fraction": 1.0}
        epochs = {"": None, **{tag.name: tag.epoch for tag in ns.tags()}}
        for tag, epoch in epochs.items():
            at = f"{info.name}@{tag}"
            hits = [ns.search(q, top_k=20, epoch=epoch, **effort) for q in QUERIES]
            found[f"{at} search"] = [(list(h.ids), h.distances.tolist()) for h in hits]
            found[f"{at} rows"] = sorted(
                (str(row.id), str(row.attributes), None if row.vector is None else row.vector.tobytes())
                for row in ns.scan(include=["vector", *info.schema] if has_vectors else None, epoch=epoch)
            )
        found[f"{info.name} info"] = (
            info.dim,
            info.metric,
            info.id_kind,
            info.rows,
            info.defaults,
            info.schema,
        )
        if "n" in info.schema:
            found[f"{info.name} filtered"] = list(
                ns.search(QUERIES[0], top_k=10, filter=["kind", "Eq", "odd"], **EXACT).ids
            )
            totals = ns.aggregate({"rows": ["Count"], "sum": ["Sum", "n"]}, group_by=["kind"])
            found[f"{info.name} aggregate"] = repr(totals.groups)
    return found


def copied(source: ObjectStore, target: ObjectStore, *names: str, **more: Any) -> dict[str, CopiedNamespace]:
    result = copying.copy_store(source, target, names or None, sleep=lambda _: None, rng=Random(5), **more)
    return {one.name: one for one in result.namespaces}


def good(source: ObjectStore, target: ObjectStore, *names: str, **more: Any) -> dict[str, CopiedNamespace]:
    found = copied(source, target, *names, **more)
    assert [one for one in found.values() if one.code] == []
    sound(target)
    return found


def sound(store: ObjectStore) -> None:
    assert verify(store).problems == ()
    for info in database(store).namespaces():  # a folder of uploads that nothing names is none
        assert check_namespace(store, info.name) == []


def emptied(store: ObjectStore) -> None:
    while metas := store.list("").objects:
        for meta in metas:
            store.delete(meta.key)


@pytest.mark.parametrize(("here", "there"), [("local", "memory"), ("memory", "local")])
def test_after_the_loss_of_a_store_its_backup_gives_the_same_answers(
    make_store: Callable[[str], ObjectStore], here: str, there: str
) -> None:
    live, backup = make_store(here), make_store(there)
    db = filled(live)
    wanted = answers(db)
    first = good(live, backup)
    assert first.keys() == {"docs", "branch", "names", "assigned", "empty"}
    assert answers(database(backup)) == wanted
    db.close()
    emptied(live)
    good(backup, live)
    restored = database(live)
    assert answers(restored) == wanted
    ns = restored.namespace("assigned")  # and it works on: ids are not assigned twice
    ns.insert(ROWS[:1])
    assert ns.stats().rows == 51
    restored.namespace("docs").compact()
    good(live, backup)
    assert answers(database(backup)) == answers(restored)


def test_a_namespace_goes_to_s3_and_back(make_store: Callable[[str], ObjectStore]) -> None:
    live, backup, anew = make_store("memory"), make_store("s3"), make_store("memory")
    db = filled(live)
    assert copied(live, backup, "docs")["docs"].code is None
    good(backup, anew, "docs")
    assert answers(database(anew)) == {k: v for k, v in answers(db).items() if k.startswith("docs")}
    db.namespace("docs").delete([200])
    again = copied(live, backup, "docs")["docs"]
    assert (again.code, again.copied, again.changed) == (None, 0, True)
    assert verify(backup).problems == ()


def test_a_second_copy_sends_what_is_new_and_a_third_nothing() -> None:
    live, backup = MemoryStore(), CountingStore(MemoryStore())
    db = filled(live)
    good(live, backup)
    ns = db.namespace("docs")
    ns.insert(ROWS[1_000:1_010], range(1_000, 1_010))
    ns.delete([400, 401])
    second = good(live, backup)
    assert (second["docs"].copied, second["docs"].changed) == (1, True)
    assert second["docs"].skipped == ns.stats().parts - 1
    assert {one.copied for name, one in second.items() if name != "docs"} == {0}
    backup.reset()
    third = good(live, backup)
    assert {(one.copied, one.changed) for one in third.values()} == {(0, False)}
    assert [backup.count(op) for op in ("put_stream", "put_if_absent", "put_if_match", "delete")] == [0] * 4
    assert answers(database(backup)) == answers(db)


def test_ids_that_were_assigned_and_deleted_since_are_not_assigned_again_after_a_restore() -> None:
    """R11: the rows are those that were copied, and the counters are not."""
    live, backup = MemoryStore(), MemoryStore()
    ns = database(live).create_namespace("docs", DIM, "l2", schema={"a": "int"})
    ns.insert(ROWS[:10])
    good(live, backup)
    gone = ns.insert(ROWS[10:13]).ids
    ns.delete(gone.tolist())
    ns.update(schema={"b": "int"})
    ns.update(schema={"b": None})
    ns.compact(everything=False)
    counted = current(live)
    one = good(live, backup)["docs"]
    assert (one.changed, one.copied) == (True, 0)
    assert not good(live, backup)["docs"].changed
    anew = MemoryStore()
    good(backup, anew)
    found = current(anew)
    assert (found.next_id, found.next_attribute) == (counted.next_id, counted.next_attribute)
    assert not set(database(anew).namespace("docs").insert(ROWS[20:23]).ids) & set(gone)


def test_tags_follow_and_go_and_those_of_the_target_stay() -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup)
    kept = database(backup)
    kept.namespace("docs").tag("monday")
    ns = db.namespace("docs")
    ns.untag("first")
    ns.insert(ROWS[1_000:1_010], range(1_000, 1_010))
    ns.tag("third")
    wanted = answers(kept)["docs@monday rows"]
    found = good(live, backup)["docs"]
    assert found.copied == 1
    assert {tag.name for tag in kept.namespace("docs").tags()} == {"monday", "second", "third"}
    assert answers(kept)["docs@monday rows"] == wanted
    assert answers(kept)["docs@third rows"] == answers(db)["docs@third rows"]
    ns.tag("monday")
    assert copied(live, backup)["docs"].code == "tag_exists"
    good(live, backup, "names")


def test_a_dry_run_tells_what_a_copy_would_send_and_changes_nothing() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    told = copied(live, backup, dry_run=True)
    assert backup.list("").objects == ()
    done = good(live, backup)
    assert {n: (one.copied, one.copied_bytes) for n, one in told.items()} == {
        n: (one.copied, one.copied_bytes) for n, one in done.items()
    }
    assert sum(one.copied_bytes for one in done.values()) == sum(
        meta.size for meta in backup.list("").objects if "/parts/" in meta.key
    )


def test_progress_adds_up() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    told: dict[str, list[int]] = {"expect": [], "progress": []}
    done = good(live, backup, expect=told["expect"].append, progress=told["progress"].append)
    size = sum(one.copied_bytes for one in done.values())
    assert (sum(told["expect"]), sum(told["progress"])) == (size, size)


def test_an_interrupted_copy_ends_within_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, interrupted = threading.Event(), threading.Event()

    class Pool(ThreadPoolExecutor):
        def __exit__(self, *raised: Any) -> bool | None:
            interrupted.set()
            return super().__exit__(*raised)

    class Interrupting(CountingStore):
        """Ctrl-C comes while the names of a store are listed and the first is being copied."""

        def list_children(self, prefix: str, *, after: str | None = None, limit: int = 1000) -> Any:
            if after is None:
                return super().list_children(prefix, limit=limit)
            assert reading.wait(30)
            raise KeyboardInterrupt

        def get_range(self, key: str, start: int, length: int) -> bytes:
            reading.set()
            assert interrupted.wait(30)
            return super().get_range(key, start, length)

    monkeypatch.setattr(copying, "Workers", Pool)
    live, backup = MemoryStore(), MemoryStore()
    database(live).create_namespace("docs", DIM, "l2").insert(ROWS)
    sent: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        copying.copy_store(Interrupting(live), backup, progress=sent.append)
    assert not sent
    assert not backup.list("").objects
    good(live, backup)
    sound(backup)


# -- whose the target is -------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda ns: ns.insert(ROWS[:1], [7]),
        lambda ns: ns.delete([250]),
        lambda ns: ns.patch([250], {"n": [5]}),
        lambda ns: ns.update(target_recall=0.5),
        lambda ns: ns.compact(everything=True),
        lambda ns: ns.restore(ns.tags()[0].epoch, if_match=(ns.stats().incarnation, ns.stats().epoch)),
    ],
    ids=["insert", "delete", "patch", "settings", "compaction", "restore"],
)
def test_a_target_that_was_written_to_is_left_alone(write: Callable[[Any], object]) -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup)
    there = database(backup)
    write(there.namespace("docs"))
    db.namespace("docs").insert(ROWS[:1], [9_999])
    db.namespace("names").delete(["row 1"])
    before = answers(there)
    found = copied(live, backup)
    assert found["docs"].code == "diverged"
    assert "docs" in str(found["docs"].message)
    after = answers(there)
    assert {k: v for k, v in after.items() if k.startswith("docs")} == {
        k: v for k, v in before.items() if k.startswith("docs")
    }
    assert (found["names"].code, found["names"].changed) == (None, True)  # the others are copied
    sound(backup)


def test_collection_and_tags_at_the_target_are_no_writes() -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup)
    there = database(backup)
    ns = db.namespace("docs")
    for turn in range(3):
        ns.insert(ROWS[turn : turn + 1], [turn])
        ns.compact(everything=True)
        there.namespace("docs").tag(f"turn {turn}".replace(" ", "-"))
        there.backend.collect("docs", retention=0.0, grace=0.0, dry_run=False)  # type: ignore[attr-defined]
        good(live, backup)
    assert answers(there)["docs@ rows"] == answers(db)["docs@ rows"]


def test_another_namespace_of_the_name_and_an_older_source_are_refused() -> None:
    live, backup, other = MemoryStore(), MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, other)
    db.namespace("docs").delete([200])
    good(live, backup)
    assert copied(other, backup)["docs"].code == "diverged"  # a copy of the older epoch
    database(stranger := MemoryStore()).create_namespace("docs", DIM).insert(ROWS[:3])
    assert copied(stranger, backup)["docs"].code == "diverged"
    replica = MemoryStore()
    for meta in live.list("").objects:
        replica.put_if_absent(meta.key, live.get(meta.key).data)
    assert copied(live, replica)["docs"].code == "diverged"  # files that were copied by other means
    db.delete_namespace("docs")
    db.create_namespace("docs", DIM).insert(ROWS[:3])
    assert copied(live, backup)["docs"].code == "diverged"
    assert database(backup).namespace("docs").stats().rows > 3


def test_what_was_deleted_by_mistake_comes_back_from_the_backup() -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    wanted = answers(db)
    good(live, backup)
    db.delete_namespace("docs")
    found = copied(live, backup)
    assert "docs" not in found  # it is not there any more; the backup keeps it
    assert copied(live, backup, "docs")["docs"].code == "namespace_not_found"
    good(backup, live, "docs")
    assert answers(db) == wanted
    good(live, backup)


def test_a_backup_that_took_over_is_copied_back_over_what_it_was_a_copy_of() -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup)
    there = database(backup)
    there.namespace("docs").insert(ROWS[:2], [5_000, 5_001])
    there.namespace("docs").tag("here")
    found = good(backup, live)
    assert found["docs"].copied == 1
    assert answers(db)["docs@ rows"] == answers(there)["docs@ rows"]
    db.namespace("docs").delete([5_000])
    good(live, backup)
    assert answers(there)["docs@ rows"] == answers(db)["docs@ rows"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_source_that_never_had_a_namespace_is_an_error_and_nothing_is_made(
    dry_run: bool, tmp_path: Path
) -> None:
    """It is a path or a prefix that somebody mistyped: a backup of nothing must not look like one."""
    live, backup = tmp_path / "mistyped", tmp_path / "backup"
    for source in (str(live), "memory://"):
        with pytest.raises(NamespaceNotFound, match="has no namespace"):
            copy_store(source, str(backup), dry_run=dry_run)
    words = ["copy", str(live), str(backup), "--quiet", *(["--dry-run"] if dry_run else [])]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"Error: file://{live} has no namespace\n"
    live.mkdir()
    assert CliRunner().invoke(main, words).exit_code == 1
    assert not list(live.iterdir())
    assert not backup.exists()


def test_a_source_whose_namespaces_were_all_deleted_is_no_error() -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup)
    for info in list(db.namespaces()):
        db.delete_namespace(info.name)
    assert copied(live, backup) == {}
    assert {info.name for info in database(backup).namespaces()}


def test_a_store_is_not_copied_onto_itself() -> None:
    store = MemoryStore()
    with pytest.raises(VecstoreError, match="both"):
        copying.copy_store(store, store)
    with pytest.raises(VecstoreError, match="server"):
        copy_store("http://127.0.0.1:1", "memory://")


# -- while others work ----------------------------------------------------------------------


class Scripted(MemoryStore):
    """Does something before the n-th call of an operation on a key that holds a word."""

    def __init__(self) -> None:
        super().__init__()
        self.before: Callable[[str, str], object] = lambda op, key: None

    def get(self, key: str) -> Any:
        self.before("get", key)
        return super().get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        self.before("get_range", key)
        return super().get_range(key, start, length)

    def put_stream(self, key: str, chunks: Any) -> ObjectMeta:
        self.before("put_stream", key)
        return super().put_stream(key, chunks)

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        self.before("put_if_match", key)
        return super().put_if_match(key, data, etag)


def once(op: str, word: str, act: Callable[[], object]) -> Callable[[str, str], object]:
    """A script of `Scripted`."""
    left = [act]
    lock = threading.Lock()

    def script(called: str, key: str) -> None:
        with lock:
            todo = left.pop() if left and called == op and word in key else None
        if todo is not None:
            todo()

    return script


def test_what_is_collected_under_a_copy_is_replaced_by_the_epoch_that_is_current_then() -> None:
    live, backup = Scripted(), MemoryStore()
    db = database(live)
    ns = db.create_namespace("docs", DIM, "l2")
    for turn in range(6):
        ns.insert(ROWS[turn * 10 : turn * 10 + 10], range(turn * 10, turn * 10 + 10))

    def compact_and_collect() -> None:
        ns.insert(ROWS[60:70], range(60, 70))
        ns.compact(everything=True)
        db.backend.collect("docs", retention=0.0, grace=-0.0, dry_run=False)  # type: ignore[attr-defined]
        for meta in live.list("namespaces/docs/parts/").objects:  # as if the clock's margin had passed
            if meta.key not in {part_key("docs", p.id) for p in current(live).parts}:
                live.delete(meta.key)

    live.before = once("get_range", "/parts/", compact_and_collect)
    found = good(live, backup)["docs"]
    assert found.epoch == ns.stats().epoch
    assert answers(database(backup)) == answers(db)


def test_an_object_that_is_lost_at_the_source_is_named_and_nothing_is_committed() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    lost = next(part for part in current(live).parts)
    live.delete(part_key("docs", lost.id))
    found = copied(live, backup)
    assert (found["docs"].code, lost.id in str(found["docs"].message)) == (StorageMissing.code, True)
    assert not any(info.name == "docs" for info in database(backup).namespaces())
    sound(backup)


def test_a_number_that_was_reserved_and_is_taken_is_named_as_such() -> None:
    key = history_key("docs", 3)

    class Taken(MemoryStore):
        def put_if_absent(self, wanted: str, data: bytes) -> ObjectMeta:
            if wanted == key:
                super().put_if_absent(key, b"of somebody else")
            return super().put_if_absent(wanted, data)

    live = MemoryStore()
    ns = database(live).create_namespace("docs", DIM, "l2", **CODED)
    ns.insert(ROWS[:10])
    ns.tag("first")
    ns.insert(ROWS[10:20])
    found = copied(live, Taken())["docs"]
    assert (found.code, found.message) == (StorageCorrupt.code, f"{key} was reserved and is taken")


def test_damage_at_the_source_is_found_while_it_is_copied_and_nothing_is_committed() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    part = current(live).parts[0]
    key = part_key("docs", part.id)
    data = bytearray(live.get(key).data)
    data[part.sections["vectors"].offset + 5] ^= 1
    live.delete(key)
    live.put_if_absent(key, bytes(data))
    found = copied(live, backup)
    assert found["docs"].code == StorageCorrupt.code
    assert key not in {meta.key for meta in backup.list("").objects}
    assert found["names"].code is None
    sound(backup)


def test_damage_on_the_way_to_the_target_is_found_before_anything_names_it() -> None:
    class Flipping(MemoryStore):
        def put_stream(self, key: str, chunks: Any) -> ObjectMeta:
            data = bytearray(b"".join(chunks))
            data[len(data) // 2] ^= 1
            return super().put_stream(key, [bytes(data)])

    live, backup = MemoryStore(), Flipping()
    filled(live)
    found = copied(live, backup)
    assert {one.code for name, one in found.items() if name != "empty"} == {StorageCorrupt.code}
    assert [info.name for info in database(backup).namespaces()] == ["empty"]


def test_a_commit_of_others_at_the_target_is_planned_anew_or_refused() -> None:
    live, backup = MemoryStore(), Scripted()
    db = filled(live)
    good(live, backup)
    there = database(backup)
    ns = db.namespace("docs")
    ns.insert(ROWS[:1], [7_000])
    ns.tag("late")
    tag = once("put_stream", "docs/parts", lambda: there.namespace("docs").tag("mine"))
    backup.before = tag
    good(live, backup)
    assert {tag.name for tag in there.namespace("docs").tags()} == {"first", "second", "late", "mine"}
    ns.delete([7_000])
    ns.insert(ROWS[:1], [7_001])
    backup.before = once("put_stream", "docs/parts", lambda: there.namespace("docs").delete([200]))
    assert copied(live, backup)["docs"].code == "diverged"
    assert there.namespace("docs").get(7_000).id == 7_000


def test_what_an_unfinished_copy_left_is_used_while_it_is_young_and_never_when_it_may_be_collected() -> None:
    time = [1_000.0]
    live, backup = MemoryStore(), MemoryStore(clock=lambda: time[0])
    db = filled(live)
    ns = db.namespace("docs")
    good(live, backup)
    ns.insert(ROWS[:10], range(8_000, 8_010))
    part = current(live).parts[-1]
    # As a copy leaves it that was killed before its commit.
    backup.put_if_absent(part_key("docs", part.id), live.get(part_key("docs", part.id)).data)
    counting = CountingStore(backup)
    assert good(live, counting)["docs"].copied == 1
    assert counting.count("put_stream") == 0
    ns.insert(ROWS[:10], range(8_100, 8_110))
    part = current(live).parts[-1]
    backup.put_if_absent(part_key("docs", part.id), live.get(part_key("docs", part.id)).data)
    time[0] += 10_000
    # A collection that has committed its barrier and has yet to delete.
    ns.delete([8_000])
    deleting = CountingStore(backup)

    class Stalled(CountingStore):
        def delete(self, key: str) -> None:
            late.append(key)

    late: list[str] = []
    collect(Stalled(backup), "docs", retention=0.0, grace=3_600.0)
    assert part_key("docs", part.id) in late
    good(live, deleting)
    assert deleting.count("put_stream") == 1
    for key in late:
        backup.delete(key)
    sound(backup)
    assert answers(database(backup)) == answers(db)
    assert good(live, backup)["docs"].changed is False
    ns.insert(ROWS[:1], [8_200])  # a part that has another id there is known again
    assert good(live, backup)["docs"].copied == 1


def test_a_first_copy_may_take_longer_than_the_grace_beside_collection() -> None:
    live = MemoryStore()
    db = database(live)
    ns = db.create_namespace("docs", DIM, "l2", **CODED)
    for start in range(0, 60, 10):
        ns.insert(ROWS[start : start + 10], range(start, start + 10))
    time, turn = [1_000.0], threading.Lock()

    class Slow(MemoryStore):
        def put_stream(self, key: str, chunks: Iterable[bytes | memoryview]) -> ObjectMeta:
            with turn:
                meta = super().put_stream(key, chunks)
                time[0] += 900.0
                collect(self, "docs", retention=0.0, grace=1_000.0)
            return meta

    target = Slow(clock=lambda: time[0])
    assert good(live, target)["docs"].copied == 6
    assert time[0] == 1_000.0 + 6 * 900.0
    assert answers(database(target)) == answers(db)


# -- kills, by every request at which one may come ------------------------------------------


class Dying(CountingStore):
    """Answers so many requests that change something, and none after them; the last may be carried out."""

    def __init__(self, inner: ObjectStore, left: int, lost: bool) -> None:
        super().__init__(inner)
        self._left = itertools.count(left, -1)
        self._lost = lost

    def _write(self, carry_out: Callable[[], Any]) -> Any:
        left = next(self._left)
        if left > 0:
            return carry_out()
        if left == 0 and self._lost:
            carry_out()
        raise Unauthorised("the process is dead")

    def put_stream(self, key: str, chunks: Any) -> ObjectMeta:
        return self._write(lambda: self.inner.put_stream(key, chunks))  # type: ignore[no-any-return]

    def put_if_absent(self, key: str, data: bytes) -> ObjectMeta:
        return self._write(lambda: self.inner.put_if_absent(key, data))  # type: ignore[no-any-return]

    def put_if_match(self, key: str, data: bytes, etag: str) -> ObjectMeta:
        return self._write(lambda: self.inner.put_if_match(key, data, etag))  # type: ignore[no-any-return]


@pytest.mark.parametrize("lost", [False, True])
def test_a_copy_that_dies_at_any_request_leaves_the_old_state_and_a_repetition_completes_it(
    lost: bool,
) -> None:
    live, backup = MemoryStore(), MemoryStore()
    db = filled(live)
    good(live, backup, "docs")
    old = answers(database(backup))
    ns = db.namespace("docs")
    ns.insert(ROWS[:10], range(8_000, 8_010))
    ns.tag("late")
    ns.delete([8_000, 200])
    new = {k: v for k, v in answers(db).items() if k.startswith("docs")}
    objects = {meta.key: backup.get(meta.key).data for meta in backup.list("").objects}
    for left in itertools.count():
        again = MemoryStore()
        for key, data in objects.items():
            again.put_if_absent(key, data)
        found = copied(live, Dying(again, left, lost), "docs")
        sound(again)
        state = answers(database(again))
        assert state in (old, new)
        if found["docs"].code is None:
            assert state == new
            break
        good(live, again, "docs")
        assert answers(database(again)) == new
    assert left > 5
    assert left < 40


def test_passing_failures_of_either_store_are_outlasted() -> None:
    class Failing(Scripted):
        def __init__(self) -> None:
            super().__init__()
            self._rng = Random(9)
            self._lock = threading.Lock()
            self.failing = False
            self.before = self._fail

        def _fail(self, op: str, key: str) -> None:
            with self._lock:
                bad = self.failing and op in ("get_range", "put_stream") and self._rng.random() < 0.2
            if bad:
                raise StorageRetryable("passing")

    live, backup = Failing(), Failing()
    db = filled(live)
    live.failing = backup.failing = True
    for _ in range(10):
        if not any(one.code for one in copied(live, backup).values()):
            break
    live.failing = backup.failing = False
    assert answers(database(backup)) == answers(db)
    sound(backup)


# -- a copy is a state that the source went through -----------------------------------------


@pytest.fixture
def busy() -> Iterator[tuple[Database, MemoryStore, list[int], threading.Event]]:
    """A namespace whose rows are written ten at a time, compacted and collected by threads all the while."""
    store = MemoryStore()
    db = database(store)
    ns = db.create_namespace("docs", DIM, "l2")
    acknowledged: list[int] = []
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                while not stop.is_set():
                    job()
            except BaseException as error:
                failures.append(error)

        return run

    numbers = itertools.count()

    def write() -> None:
        n = next(numbers) % 40
        vectors = np.full((10, DIM), float(len(acknowledged)), dtype=np.float32)
        ns.insert(vectors, range(n * 10, n * 10 + 10))
        acknowledged.append(n)

    def compact() -> None:
        ns.compact()

    def collect() -> None:
        db.backend.collect("docs", retention=0.0, grace=0.0, dry_run=False)  # type: ignore[attr-defined]

    threads = [threading.Thread(target=guarded(job)) for job in (write, compact, collect)]
    for thread in threads:
        thread.start()
    yield db, store, acknowledged, stop
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_copy_under_writers_compaction_and_collection_is_a_state_that_the_source_went_through(
    busy: tuple[Database, MemoryStore, list[int], threading.Event],
) -> None:
    db, store, acknowledged, stop = busy
    backup = MemoryStore()
    there = database(backup)
    for _ in range(6):
        goal = len(acknowledged) + 5
        while len(acknowledged) < goal and not stop.is_set():
            db.namespace("docs").stats()
        before = len(acknowledged)
        good(store, backup)
        # Write number i sets ten rows to i: a state is known by its latest number.
        rows = {int(row.id): float(row.vector[0]) for row in there.namespace("docs").scan(include=["vector"])}
        written = list(acknowledged)
        latest = int(max(rows.values()))
        assert latest >= before - 1
        wanted = {}
        for number in range(latest + 1):
            n = written[number] if number < len(written) else number % 40
            wanted.update({n * 10 + i: float(number) for i in range(10)})
        assert rows == wanted


def current(store: ObjectStore) -> Any:
    return history.read_current(store, "docs").manifest


def test_the_key_of_a_namespace_that_is_not_copied_is_not_made() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    good(live, backup, "empty")
    assert [meta.key for meta in backup.list("").objects if meta.key.endswith("current")] == [
        current_key("empty")
    ]


@pytest.mark.parametrize(("source", "target"), [("d", "d/sub"), ("d/sub/deep", "d"), ("d", "link/sub")])
def test_a_store_is_not_put_into_another_one(source: str, target: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "d")
    with vecstore.connect(tmp_path / source, maintenance="off") as db:
        db.create_namespace("docs", 2).insert(np.ones((1, 2)), [1])
    with pytest.raises(InvalidArgument, match="lies within the other") as refused:
        copy_store(tmp_path / source, tmp_path / target)
    assert refused.value.details["field"] == "target"
    done = CliRunner().invoke(main, ["copy", str(tmp_path / source), str(tmp_path / target), "--quiet"])
    assert done.exit_code == 1
    copy_store(tmp_path / source, tmp_path / "d2")


# -- a namespace whose manifest/current is lost ---------------------------------------------


def test_a_source_whose_current_is_lost_is_a_failure_and_the_others_are_copied() -> None:
    live, backup = MemoryStore(), MemoryStore()
    filled(live)
    live.delete(current_key("docs"))
    for names in ((), ("docs", "names")):
        found = copied(live, backup, *names)
        assert found["docs"].code == StorageCorrupt.code
        assert found["names"].code is None
    assert {info.name for info in database(backup).namespaces()} == {"branch", "names", "assigned", "empty"}


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_target_whose_current_is_lost_is_left_alone(dry_run: bool) -> None:
    live, backup = MemoryStore(), MemoryStore()
    wanted = answers(filled(live))
    good(live, backup)
    database(live).namespace("names").delete(["row 1"])
    live.delete(current_key("names"))
    before = {meta.key for meta in live.list("").objects}
    assert copied(backup, live, "names", dry_run=dry_run)["names"].code == StorageCorrupt.code
    assert {meta.key for meta in live.list("").objects} == before
    for meta in live.list("namespaces/names/").objects:  # as docs/incidents.md has it
        live.delete(meta.key)
    good(backup, live, "names")
    assert answers(database(live)) == wanted
