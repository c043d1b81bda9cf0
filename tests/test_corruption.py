"""Issue point 9: damage to any object is named, never served.

A byte flipped, a tail cut off or two objects swapped, in a store that maps objects and in one that
reads ranges through the page cache, before the first search and after it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core import CODED, RangeStore, clustered, database, generator
from vecstore.api import Namespace
from vecstore.errors import StorageCorrupt, StorageError, StorageMissing
from vecstore.manifest.keys import current_key, part_key
from vecstore.part.format import Footer, read_footer
from vecstore.storage.base import ObjectStore
from vecstore.storage.local import LocalStore
from vecstore.storage.memory import MemoryStore

DIM = 12
NAMES = ("ns", "other")
PRECISIONS = ("none", "int8", "fp32")
FILTER = ["Or", [["n", "Lt", 200], ["word", "In", ["word 3", "word 300"]]]]
QUERY = clustered(generator(5), 1, DIM)[0]


@dataclass
class World:
    """Two namespaces of the same shape: what their objects hold, and what every epoch answers."""

    objects: dict[str, bytes] = field(default_factory=dict)
    sections: dict[str, Footer] = field(default_factory=dict)
    answers: dict[tuple[int, str], Any] = field(default_factory=dict)
    vectors: dict[int, Any] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        return sorted(self.objects)


def answer(ns: Namespace, precision: Any, **options: Any) -> tuple[int, Any]:
    hits = ns.search(QUERY, top_k=15, rerank_precision=precision, include=["vector"], **options)
    assert hits.vectors is not None
    filtered = ns.search(QUERY, top_k=15, filter=FILTER, include=["word", "n"], **options)
    return hits.epoch, (
        hits.ids.tolist(),
        hits.distances.tolist(),
        hits.vectors.tolist(),
        filtered.ids.tolist(),
        filtered.attributes,
    )


def attributes(n: int) -> dict[str, Any]:
    return {"n": np.arange(n), "word": [f"word {i % 7}" if i % 5 else None for i in range(n)]}


@pytest.fixture(scope="module")
def world() -> World:
    """Parts large and small, tombstones for both, and a manifest with history."""
    store = MemoryStore()
    db = database(store)
    rows = clustered(generator(1), 1_200, DIM)
    made = World()
    for i, name in enumerate(NAMES):
        ns = db.create_namespace(
            name,
            dim=DIM,
            metric="l2",
            list_rows=16,
            target_recall=None,
            schema={"n": "int", "word": "string"},
            **CODED,
        )
        mine = rows[600 * i : 600 * i + 600]
        ns.insert(mine[:250], range(250), attributes=attributes(250))
        ns.insert(mine[250:500], range(250, 500))
        ns.delete(range(0, 500, 7))
        ns.update(small_part_threshold=1 << 20)
        ns.insert(mine[500:550], range(500, 550), attributes=attributes(50))
        ns.insert(mine[550:], range(490, 540))
    page = store.list("")
    made.objects = {meta.key: store.get(meta.key).data for meta in page.objects}
    made.sections = {
        key: read_footer(data, key=key) for key, data in made.objects.items() if key.endswith(".part")
    }
    ns = db.namespace("ns")
    for epoch in range(1, ns.stats().epoch + 1):
        for precision in PRECISIONS:
            made.answers[epoch, precision] = answer(ns, precision, epoch=epoch)[1]
    made.vectors = {i: ns.get(i).vector for i in (1, 499, 549)}
    return made


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(mkdtemp(prefix="vecstore-corruption-"))
    yield made
    shutil.rmtree(made)


@dataclass
class Damaged:
    """A store that holds the world's objects, and can have one replaced behind its back."""

    store: ObjectStore
    root: Path | None

    def replace(self, key: str, data: bytes) -> None:
        if self.root is not None:
            path = self.root / key
            path.unlink(missing_ok=True)
            path.write_bytes(data)
        else:
            self.store.delete(key)
            self.store.put_if_absent(key, data)


def restored(world: World, kind: str, folder: Path) -> Damaged:
    if kind == "local":
        root = folder / "store"
        shutil.rmtree(root, ignore_errors=True)
        for key, data in world.objects.items():
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)
        return Damaged(LocalStore(root), root)
    store = MemoryStore() if kind == "memory" else RangeStore()
    for key, data in world.objects.items():
        store.put_if_absent(key, data)
    return Damaged(store, None)


def damage(data: st.DataObject, world: World) -> dict[str, bytes]:
    """What takes the place of which object."""
    kind = data.draw(st.sampled_from(["flip", "cut", "swap"]), label="kind")
    key = data.draw(st.sampled_from([k for k in world.keys if f"/{NAMES[0]}/" in k]), label="object")
    whole = world.objects[key]
    if kind == "swap":
        other = data.draw(st.sampled_from([k for k in world.keys if k != key]), label="with")
        return {key: world.objects[other], other: whole}
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    if key in world.sections:
        name = data.draw(st.sampled_from([*sorted(world.sections[key].sections), "ends"]), label="section")
        if name != "ends":
            section = world.sections[key].sections[name]
            at = section.offset + at % section.length
    if kind == "cut":
        return {key: whole[:at]}
    bit = data.draw(st.integers(0, 7), label="bit")
    return {key: whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :]}


def check_named(error: StorageError, replaced: Collection[str]) -> None:
    assert error.details["object"] in replaced
    assert isinstance(error, StorageMissing) or error.details["section"]


def check(ns: Namespace, world: World, replaced: dict[str, bytes], precision: str, **options: Any) -> None:
    """Exactly right for the epoch that it names, or an error that names object and section."""
    try:
        epoch, found = answer(ns, precision, **options)
    except (StorageCorrupt, StorageMissing) as error:
        check_named(error, replaced)
        return
    newest = max(epoch for epoch, _ in world.answers)
    if current_key(NAMES[0]) not in replaced:
        assert epoch == newest
    # A copy of a past epoch in the place of `current` is a whole namespace of that epoch: no
    # checksum tells it from a store that was set back. What it answers is right for that epoch.
    assert found == world.answers[epoch, precision]


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(["memory", "ranges", "local"]),
    warm=st.sampled_from([None, "little", "all"]),
    precisions=st.permutations(PRECISIONS),
)
def test_damage_is_named_and_never_served(
    data: st.DataObject, kind: str, warm: str | None, precisions: list[str], world: World, folder: Path
) -> None:
    damaged = restored(world, kind, folder)
    replaced = damage(data, world)
    db = database(damaged.store, seed=3)
    if warm is not None:
        probes: dict[str, Any] = {"nprobe": 1} if warm == "little" else {"probe_fraction": 1.0}
        db.namespace(NAMES[0]).search(QUERY, top_k=1, rerank_precision="int8", **probes)
    for key, content in replaced.items():
        damaged.replace(key, content)
    try:
        ns = db.namespace(NAMES[0])
    except StorageCorrupt as error:
        check_named(error, {current_key(NAMES[0])} & set(replaced))
        return
    for precision in precisions:
        check(ns, world, replaced, precision)
    newest = max(epoch for epoch, _ in world.answers)
    for identity, vector in world.vectors.items():
        try:
            row = ns.get(identity)
        except (StorageCorrupt, StorageMissing) as error:
            check_named(error, replaced)
        except LookupError:
            assert current_key(NAMES[0]) in replaced
        else:
            if row.epoch == newest:
                np.testing.assert_array_equal(row.vector, vector)
    damaged.store.close()


@pytest.mark.parametrize("kind", ["memory", "ranges", "local"])
@pytest.mark.parametrize("warm", [False, True])
def test_each_section_of_each_part_is_named(kind: str, warm: bool, world: World, folder: Path) -> None:
    """Every section that a search needs, one after another, with all of it damaged."""
    needed = {"records", "lists", "checksums", "cells", "cell_lists", "centroid_codes", "vectors"}
    seen = set()
    for key, footer in world.sections.items():
        if not key.startswith(f"namespaces/{NAMES[0]}/"):
            continue
        for name in sorted(needed & set(footer.sections)):
            damaged = restored(world, kind, folder)
            db = database(damaged.store, seed=3)
            if warm:
                db.namespace(NAMES[0])  # the manifest is known, the parts are not
            section = footer.sections[name]
            whole = bytearray(world.objects[key])
            for at in range(section.offset, section.offset + section.length, 64):
                whole[at] ^= 1
            damaged.replace(key, bytes(whole))
            with pytest.raises(StorageCorrupt) as error:
                db.namespace(NAMES[0]).search(QUERY, probe_fraction=1.0, rerank_precision="fp32")
            assert error.value.details["object"] == key
            assert error.value.details["section"] == name
            seen.add(name)
            damaged.store.close()
    assert seen == needed


def test_a_tombstone_of_another_namespace_brings_no_row_back(world: World, folder: Path) -> None:
    damaged = restored(world, "ranges", folder)
    mine, theirs = (
        next(k for k in world.keys if k.startswith(f"namespaces/{name}/deletes/")) for name in NAMES
    )
    damaged.replace(mine, world.objects[theirs])
    ns = database(damaged.store, seed=3).namespace(NAMES[0])
    if world.objects[mine] == world.objects[theirs]:
        pytest.fail("the two tombstones are the same: the test says nothing")
    check(ns, world, {mine: b""}, "int8")


def test_a_damaged_manifest_does_not_stop_other_namespaces(world: World, folder: Path) -> None:
    damaged = restored(world, "memory", folder)
    damaged.replace(current_key(NAMES[1]), b"{}")
    db = database(damaged.store, seed=3)
    check(db.namespace(NAMES[0]), world, {}, "int8")
    with pytest.raises(StorageCorrupt) as error:
        db.namespace(NAMES[1])
    assert error.value.details == {"object": current_key(NAMES[1]), "section": "manifest"}


def test_a_part_that_reads_well_again_is_served_again(world: World, folder: Path) -> None:
    """A fault of the transfer passes: nothing remembers that a page was bad once."""
    damaged = restored(world, "ranges", folder)
    key = next(k for k in world.sections if k.startswith(f"namespaces/{NAMES[0]}/"))
    assert key == part_key(NAMES[0], key.split("/")[-1].removesuffix(".part"))
    ns = database(damaged.store, seed=3).namespace(NAMES[0])
    damaged.replace(key, bytes(len(world.objects[key])))
    with pytest.raises(StorageCorrupt):
        answer(ns, "int8")
    damaged.replace(key, world.objects[key])
    check(ns, world, {}, "int8")


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_part_damaged_in_place_while_it_is_mapped_is_named(damage: str, tmp_path: Path) -> None:
    """Not by us: no object is ever written to twice. A mapping shows the damage all the same."""
    ns = database(LocalStore(tmp_path)).create_namespace("docs", dim=16, metric="l2", **CODED)
    rows = generator(3).standard_normal((600, 16)).astype(np.float32)
    ns.insert(rows)
    assert ns.search(rows[7], probe_fraction=1.0).ids[0] == 7
    (path,) = tmp_path.rglob("*.part")
    before = path.stat().st_mtime_ns
    at = ns.manifest()["parts"][0]["sections"]["records"][0] + 200
    size, byte = path.stat().st_size, path.read_bytes()[at]
    deadline = time.monotonic() + 10
    while path.stat().st_mtime_ns == before and time.monotonic() < deadline:
        with path.open("r+b") as file:
            if damage == "cut":
                file.truncate(size // 2)
            else:
                file.seek(at)
                file.write(bytes([byte ^ 1]))
    with pytest.raises(StorageCorrupt) as caught:
        ns.search(rows[7], probe_fraction=1.0)
    assert caught.value.details["object"].endswith(path.name)
    assert caught.value.details["section"]
