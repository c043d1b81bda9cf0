"""Many namespaces over one scripted store, and what must hold of all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from tests.manifest.helpers import Call, ScriptedStore, change, insert, make_publisher, scripted
from vecstore.errors import StorageMissing
from vecstore.invariants import check_namespace
from vecstore.maintenance.gc import collect
from vecstore.manifest import history
from vecstore.manifest.branch import branch
from vecstore.manifest.keys import part_key
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.model import Manifest
from vecstore.manifest.publish import Publisher
from vecstore.manifest.tombstones import read_tombstone

HOUR = 3600.0


class World:
    """One process over a store: a publisher a namespace, and short names for what one does."""

    def __init__(self, store: ScriptedStore, seed: int = 1) -> None:
        self.store = store
        self.seeds = count(seed * 1000)
        self.publishers: dict[str, Publisher] = {}

    def __call__(self, name: str) -> Publisher:
        """The publisher of a namespace."""
        if name not in self.publishers:
            self.publishers[name] = make_publisher(self.store, next(self.seeds), namespace=name)
        return self.publishers[name]

    def other(self) -> World:
        """Another process over the same store."""
        return World(self.store, next(self.seeds))

    def create(self, name: str) -> None:
        create_namespace(
            self.store, name, dim=4, metric="l2", publisher=self(name), rng=Random(next(self.seeds))
        )

    def insert(self, name: str, n: int = 10) -> str:
        """A part of ``n`` rows; its id."""
        return self(name).commit(insert(self(name), n)).manifest.parts[-1].id

    def kill(self, name: str, part_id: str, *rows: int) -> None:
        self(name).commit(change(self(name), kills={part_id: list(rows)}))

    def compact(self, name: str) -> None:
        """Replace all parts by one new one."""
        publisher = self(name)
        old = [part.id for part in publisher.snapshots.strong().manifest.parts]
        publisher.commit(insert(publisher, removes=old))

    def branch(self, source: str, name: str, epoch: int | None = None) -> Manifest:
        return branch(self, source, name, epoch=epoch).manifest

    def delete(self, name: str) -> None:
        delete_namespace(self.store, name, publisher=self(name))

    def collect(self, *names: str, retention: float = HOUR, grace: float = HOUR) -> None:
        for name in names or self.names():
            collect(self.store, name, publisher=self(name), retention=retention, grace=grace)

    def hours_pass(self, rounds: int = 1) -> None:
        """Everything that can expire does, and is collected by another process."""
        for _ in range(rounds):
            self.store.time += 2 * HOUR
            self.other().collect()

    def names(self) -> list[str]:
        return list(self.store.list_children("namespaces/"))

    def current(self, name: str) -> Manifest | None:
        """None where the name was never used."""
        try:
            return history.read_current(self.store, name).manifest
        except StorageMissing:
            return None

    def exists(self, name: str) -> bool:
        found = self.current(name)
        return found is not None and found.state == "active"

    def rows(self, name: str, epoch: int | None = None) -> dict[str, set[int]]:
        """Live rows of each part; every object that is named is read."""
        snapshots = make_publisher(self.store, 1, namespace=name).snapshots
        manifest = (snapshots.strong() if epoch is None else snapshots.at_epoch(epoch)).manifest
        found = {}
        for part in manifest.parts:
            self.store.get(part_key(part.owner, part.id))
            dead = () if part.tombstone is None else read_tombstone(self.store, part.tombstone, n=part.n)
            found[part.id] = set(range(part.n)) - set(dead)
        return found

    def check(self) -> None:
        for name in self.names():
            assert check_namespace(self.store, name) == [], name

    def pins(self, name: str) -> list[tuple[str, int]]:
        found = self.current(name)
        return [] if found is None else [(pin.name, pin.epoch) for pin in found.pins]

    def comes_to_nothing(self) -> None:
        """Once all namespaces are deleted and time has passed, no object and no pin is left."""
        for name in self.names():
            if self.exists(name):
                self.delete(name)
        self.hours_pass(2 + len(self.names()))
        left = [key for key in self.store.objects if "/parts/" in key or "/deletes/" in key]
        assert left == []
        assert [self.pins(name) for name in self.names()] == [[]] * len(self.names())
        self.check()


def at_every_call(
    world: World, job: Callable[[World], None], other: Callable[[], None], *, after: bool = False
) -> int:
    """Run ``job`` in a new process from the same state again and again, ``other`` at each call in turn.

    ``other`` acts before the call is carried out, or ``after`` it. Returns how many calls ``job`` makes,
    and leaves the store as it was.
    """
    store = world.store
    start = dict(store.objects), store.time
    for at in count(1):
        store.objects, store.time = dict(start[0]), start[1]
        calls = [0]

        def script(call: Call, at: int = at, calls: list[int] = calls) -> Any:
            calls[0] += 1
            mine = calls[0] == at
            result = call.carry_out() if after or not mine else None
            if mine:
                store.script = None
                try:
                    other()
                finally:
                    store.script = script
                if not after:
                    result = call.carry_out()
            return result

        with scripted(store, script):
            job(world.other())
        if calls[0] < at:
            store.objects, store.time = dict(start[0]), start[1]
            return at - 1
    raise AssertionError("unreachable")
