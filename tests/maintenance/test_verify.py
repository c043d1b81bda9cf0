"""Verification finds a flipped byte anywhere and names it; a sound store passes; garbage is no fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import CODED, RangeStore, clustered, database, generator
from vecstore.cli import main
from vecstore.errors import NamespaceNotFound
from vecstore.maintenance import verify as verification
from vecstore.maintenance.verify import verify
from vecstore.manifest.keys import current_key, delete_key, history_key, part_key
from vecstore.manifest.lease import Lease
from vecstore.manifest.model import Manifest, decode_manifest, encode_manifest
from vecstore.part.format import read_footer
from vecstore.storage.base import ObjectStore
from vecstore.storage.faults import CountingStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore
from vecstore.types import VerifyReport

DIM = 12


def filled(store: ObjectStore) -> None:
    """Parts with and without codes, ids given, assigned and strings, tombstones, history, a lease."""
    db = database(store)
    rows = clustered(generator(1), 900, DIM)
    ns = db.create_namespace("ns", dim=DIM, metric="l2", list_rows=16, **CODED)
    ns.insert(rows[:300], range(300))
    ns.delete(range(0, 300, 7))
    ns.update(small_part_threshold=1 << 20)
    ns.insert(rows[300:400], range(250, 350))
    ns.insert(rows[400:420])
    names = db.create_namespace("names", dim=DIM, **CODED, store_vectors="none")
    names.insert(rows[420:800], [f"row {i}" for i in range(380)])
    names.insert(rows[800:], [f"row {i}" for i in range(300, 400)])
    names.compact()
    db.create_namespace("empty", dim=DIM)
    db.create_namespace("deleted", dim=DIM).insert(rows[:5])
    db.delete_namespace("deleted")
    assert Lease(store, "ns", "compaction", holder="a test", ttl=60.0, rng=Random(1)).acquire()


def objects(store: ObjectStore) -> dict[str, bytes]:
    return {meta.key: store.get(meta.key).data for meta in store.list("").objects}


@pytest.fixture(scope="module")
def world() -> dict[str, bytes]:
    store = MemoryStore()
    filled(store)
    return objects(store)


def restored(world: dict[str, bytes], kind: type[MemoryStore] = MemoryStore) -> MemoryStore:
    store = kind()
    for key, data in world.items():
        store.put_if_absent(key, data)
    return store


def replace(store: ObjectStore, key: str, data: bytes) -> None:
    store.delete(key)
    store.put_if_absent(key, data)


def manifest_of(world: dict[str, bytes], name: str) -> Manifest:
    key = current_key(name)
    return decode_manifest(world[key], key=key, namespace=name)


def rules(report: VerifyReport) -> set[str]:
    return {problem.rule for problem in report.problems}


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
def test_a_sound_store_passes(kind: type[MemoryStore], world: dict[str, bytes]) -> None:
    read = []
    expected: list[int] = []
    report = verify(restored(world, kind), expect=expected.append, progress=read.append)
    assert report.problems == ()
    assert report.sound
    assert report.namespaces == 4
    assert report.objects == len(world)
    assert report.orphans == 0
    size = sum(map(len, world.values()))
    assert report.bytes == sum(read) == sum(expected) == size


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_anywhere_names_object_and_section(
    data: st.DataObject, world: dict[str, bytes]
) -> None:
    kinds = sorted({key.split("/")[2] + key[-5:] for key in world} - {"_controllease"})
    kind = data.draw(st.sampled_from(kinds), label="kind")
    keys = sorted(k for k in world if k.split("/")[2] + k[-5:] == kind and "_control" not in k)
    key = data.draw(st.sampled_from(keys), label="object")
    whole = world[key]
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    section: str | None = None
    if key.endswith(".part"):
        sections = read_footer(whole, key=key).sections
        section = data.draw(st.sampled_from([*sorted(sections), "ends"]), label="section")
        if section != "ends":
            at = sections[section].offset + at % sections[section].length
    bit = data.draw(st.integers(0, 7), label="bit")
    store = restored(world, data.draw(st.sampled_from([MemoryStore, RangeStore])))
    replace(store, key, whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :])
    report = verify(store)
    assert not report.sound
    named = [problem for problem in report.problems if problem.object == key]
    assert named
    assert all(problem.section for problem in named)
    if section not in (None, "ends"):
        assert {problem.section for problem in named} == {section}
    # Nothing else is blamed but what can no longer be held against it.
    assert {problem.object for problem in report.problems} == {key}


def test_every_kind_of_object_is_among_those_that_are_damaged(world: dict[str, bytes]) -> None:
    kinds = {key.split("/")[2] for key in world}
    assert kinds == {"manifest", "parts", "deletes", "_control"}
    assert any(key.endswith("current") for key in world)
    assert any(key.endswith(".json") for key in world)


@pytest.mark.parametrize("damage", ["missing", "cut", "longer", "swapped"])
def test_objects_that_are_not_what_they_were_are_named(damage: str, world: dict[str, bytes]) -> None:
    for key in [key for key in world if "/parts/" in key or "/deletes/" in key]:
        store = restored(world)
        other = next(k for k in world if k != key and k.split("/")[2] == key.split("/")[2])
        store.delete(key)
        if damage != "missing":
            changed = {"cut": world[key][:-70], "longer": world[key] + b"\0", "swapped": world[other]}
            store.put_if_absent(key, changed[damage])
        report = verify(store)
        assert {problem.object for problem in report.problems} == {key}, damage
        assert all(problem.section for problem in report.problems)
        if damage == "missing":
            assert rules(report) == {"R3"}


def test_an_epoch_that_is_gone_is_missed(world: dict[str, bytes]) -> None:
    store = restored(world)
    store.delete(history_key("ns", 3))
    report = verify(store, ["ns"])
    assert [(p.object, p.rule) for p in report.problems] == [(history_key("ns", 3), "R1")]


def test_what_no_epoch_names_is_an_orphan_and_no_fault(world: dict[str, bytes]) -> None:
    store = restored(world)
    strays = [
        part_key("ns", "0" * 32),
        delete_key("names", "1" * 32),
        "namespaces/ns/parts/whatever",
        "elsewhere/thing",
        part_key("never-committed", "2" * 32),
    ]
    for key in strays:
        store.put_if_absent(key, b"12345")
    report = verify(store)
    assert report.sound
    assert report.orphans == len(strays)
    assert report.orphan_bytes == 5 * len(strays)
    assert sorted(report.orphan_keys) == sorted(strays)


def test_an_id_that_lives_twice_is_found(world: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, identity in (("ns", "250"), ("names", "'row 300'")):
        store = MemoryStore()
        filled(store)
        if name == "names":
            rows = clustered(generator(1), 10, DIM)
            database(store).namespace("names").insert(rows, [f"row {i}" for i in range(300, 310)])
        found = manifest_of(objects(store), name)
        revived = msgspec.structs.replace(
            found, parts=tuple(msgspec.structs.replace(part, tombstone=None) for part in found.parts)
        )
        replace(store, current_key(name), encode_manifest(revived))
        for at_once in (verification._KEYS_AT_ONCE, 1):
            monkeypatch.setattr(verification, "_KEYS_AT_ONCE", at_once)
            report = verify(store, [name])
            twice = [p.message for p in report.problems if p.rule == "R5"]
            assert any(f"id {identity} lives" in message for message in twice)
            assert all(p.object == current_key(name) for p in report.problems)
        monkeypatch.undo()


def test_ids_of_many_pages_are_compared_a_slice_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_KEYS_AT_ONCE", 1)
    store = MemoryStore()
    ns = database(store).create_namespace("wide", dim=2, metric="l2", small_part_threshold=1 << 20)
    rows = generator(4).standard_normal((20_000, 2)).astype(np.float32)
    ns.insert(rows, range(0, 40_000, 2))
    ns.insert(rows, range(1, 40_000, 2))
    assert verify(store).sound
    ns.insert(rows[:3], [0, 20_000, 39_999])
    assert verify(store).sound
    found = decode_manifest(store.get(current_key("wide")).data, key=current_key("wide"), namespace="wide")
    revived = tuple(msgspec.structs.replace(part, tombstone=None) for part in found.parts)
    replace(store, current_key("wide"), encode_manifest(msgspec.structs.replace(found, parts=revived)))
    twice = {p.message.split()[2] for p in verify(store).problems if p.rule == "R5"}
    assert twice == {"0", "20000", "39999"}


def test_branches_tags_and_restored_epochs_are_sound_and_missed_when_they_are_not() -> None:
    store = MemoryStore()
    filled(store)
    db = database(store)
    ns = db.namespace("ns")
    before = ns.stats()
    ns.tag("kept", 3)
    ns.branch("branch").delete([251])
    now = ns.stats()
    ns.restore(before.epoch, if_match=(now.incarnation, now.epoch))
    assert verify(store).problems == ()
    # A part that the source has lost is missed in both.
    (part, *_) = manifest_of(objects(store), "ns").parts
    whole = store.get(part_key("ns", part.id)).data
    store.delete(part_key("ns", part.id))
    report = verify(store, ["branch"])
    assert {(p.object, p.rule) for p in report.problems} == {(part_key("ns", part.id), "R3")}
    store.put_if_absent(part_key("ns", part.id), whole)
    # So is the pin that holds the source's objects for the branch.
    found = manifest_of(objects(store), "ns")
    pins = tuple(pin for pin in found.pins if pin.kind != "branch")
    replace(store, current_key("ns"), encode_manifest(msgspec.structs.replace(found, pins=pins)))
    assert {(p.object, p.rule) for p in verify(store, ["branch"]).problems} == {(current_key("branch"), "R9")}


def test_what_collection_takes_meanwhile_is_not_missed(world: dict[str, bytes]) -> None:
    """A floor that rises while we read is no fault."""
    store = restored(world)
    raised = msgspec.structs.replace(manifest_of(world, "ns"), history_floor=4)

    class Collected(CountingStore):
        """Collects the first epochs as soon as one of them is asked for."""

        def get(self, key: str) -> Any:
            if key == history_key("ns", 2):
                store.delete(key)
                replace(store, current_key("ns"), encode_manifest(raised))
            return super().get(key)

    assert verify(Collected(store), ["ns"]).sound


def test_a_namespace_that_never_was_is_an_error(world: dict[str, bytes]) -> None:
    with pytest.raises(NamespaceNotFound):
        verify(restored(world), ["nothing"])


def test_a_store_that_has_no_namespace_is_not_called_sound(tmp_path: Path) -> None:
    """A path that somebody mistyped, or a store that lost everything; also where others keep something."""
    root = tmp_path / "mistyped"
    with pytest.raises(NamespaceNotFound, match="has no namespace"):
        verify(MemoryStore())
    for _ in range(2):
        done = CliRunner().invoke(main, ["verify", str(root), "--quiet"])
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr == f"Error: file://{root} has no namespace\n"
        (root / "photos").mkdir(parents=True, exist_ok=True)
        (root / "photos" / "x.jpg").write_bytes(b"x")


def test_the_command_tells_people_and_machines(world: dict[str, bytes], tmp_path: Path) -> None:
    root = tmp_path / "store"
    store = LocalStore(root)
    for key, data in world.items():
        store.put_if_absent(key, data)
    run = CliRunner().invoke
    sound = run(main, ["verify", str(root)])
    assert sound.exit_code == 0, sound.output
    assert "sound" in sound.stdout
    path = max((root / "namespaces/names/parts").iterdir(), key=lambda path: path.stat().st_size)
    key = str(path.relative_to(root))
    section = read_footer(world[key], key=key).sections["records"]
    data = bytearray(world[key])
    data[section.offset + 1000] ^= 4
    path.unlink()
    path.write_bytes(data)
    bad = run(main, ["verify", str(root), "names", "--json", "--quiet"])
    assert bad.exit_code == 1
    told = json.loads(bad.stdout)
    assert told["found"] == 1
    assert told["problems"][0]["object"] == key
    assert told["problems"][0]["section"] == "records"
    assert told["problems"][0]["rule"] == "P5"
    assert run(main, ["verify", str(root), "ns"]).exit_code == 0
    assert run(main, ["verify", "http://127.0.0.1:1"]).exit_code == 1
    shutil.rmtree(root)


def test_a_namespace_whose_current_is_lost_is_no_sound_one(world: dict[str, bytes]) -> None:
    store = restored(world)
    store.delete(current_key("ns"))
    report = verify(store)
    assert [(problem.object, problem.rule) for problem in report.problems] == [(current_key("ns"), "R4")]
    assert "docs/incidents.md" in report.problems[0].message
    assert report.orphans == 0


def test_a_horizon_in_the_future_is_told_of() -> None:
    now = [1_700_000_000.0]
    store = MemoryStore(clock=lambda: now[0])
    db = database(store)
    ns = db.create_namespace("ns", dim=DIM)
    ns.insert(clustered(generator(1), 10, DIM))
    ns.compact()
    assert verify(store).sound
    now[0] += 86_400
    ns.insert(clustered(generator(2), 10, DIM))
    ns.compact()
    now[0] += 86_400
    assert ns.gc().deleted
    now[0] -= 2 * 86_400
    assert [problem.rule for problem in verify(store).problems] == ["R3"]
    now[0] += 2 * 86_400
    assert verify(store).sound
