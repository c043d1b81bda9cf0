"""Any order of writes, restores, tags, branches, crashes, deletions and collections keeps every promise.

A hypothesis state machine runs two processes over one store beside a model that knows the rows of every
namespace at every epoch that it has seen. After each step the invariants hold of all namespaces, each
has its rows, and so does each tag. In the end all is deleted, and nothing must be left. A failing run
prints the steps to repeat it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.manifest.helpers import Call, ScriptedStore
from tests.manifest.worlds import World
from vecstore.errors import NamespaceExists, NamespaceNotFound, SnapshotExpired, StorageConflict
from vecstore.manifest.pins import add_tag, remove_tag
from vecstore.manifest.restore import restore

Rows = dict[str, set[int]]

N = 6  # rows a part
WINDOW = 500.0  # seconds of retention and of grace
NAMES = ("a", "b", "c", "d")
nodes = st.integers(0, 1)
names = st.sampled_from(NAMES)


class Crash(BaseException):
    """The process is gone."""


def copied(rows: Rows) -> Rows:
    return {part: set(alive) for part, alive in rows.items()}


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = ScriptedStore()
        self.store.tick = 1.0
        self.nodes = [World(self.store, seed) for seed in (1, 2)]
        self.rows: dict[str, Rows] = {}
        self.past: dict[str, dict[int, Rows]] = {}  # of the incarnation that there is
        self.tags: dict[str, dict[str, int]] = {}

    def _began(self, name: str, rows: Rows) -> None:
        self.rows[name], self.past[name], self.tags[name] = rows, {}, {}

    def _an_epoch(self, name: str, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.past[name])), label="epoch")

    def _has_left(self, name: str, epoch: int) -> bool:
        current = self.nodes[0].current(name)
        assert current is not None
        return epoch < current.history_floor and epoch not in {pin.epoch for pin in current.pins}

    @initialize()
    def start(self) -> None:
        self.create(0, "a")
        self.insert(0, "a")

    @rule(node=nodes, name=names)
    def create(self, node: int, name: str) -> None:
        try:
            self.nodes[node].create(name)
        except NamespaceExists:
            assert name in self.rows
        else:
            assert name not in self.rows
            self._began(name, {})

    @rule(node=nodes, name=names)
    def insert(self, node: int, name: str) -> None:
        if name in self.rows:
            self.rows[name][self.nodes[node].insert(name, N)] = set(range(N))

    @rule(
        node=nodes,
        name=names,
        rows=st.sets(st.integers(0, N - 1), min_size=1, max_size=3),
        which=st.integers(0),
    )
    def kill(self, node: int, name: str, rows: set[int], which: int) -> None:
        parts = sorted(self.rows.get(name, {}))
        if parts:
            part = parts[which % len(parts)]
            self.nodes[node].kill(name, part, *rows)
            self.rows[name][part] -= rows

    @rule(node=nodes, name=names)
    def compact(self, node: int, name: str) -> None:
        if self.rows.get(name):
            self.nodes[node].compact(name)
            (part,) = self.nodes[node](name).snapshots.strong().manifest.parts
            self.rows[name] = {part.id: set(range(part.n))}

    @precondition(lambda self: any(self.past.values()))
    @rule(node=nodes, data=st.data())
    def read(self, node: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n in self.past if self.past[n])), label="name")
        epoch = self._an_epoch(name, data)
        try:
            found = self.nodes[node].rows(name, epoch)
        except SnapshotExpired:
            assert self._has_left(name, epoch)
        else:
            assert found == self.past[name][epoch]

    @precondition(lambda self: any(self.past.values()))
    @rule(node=nodes, data=st.data())
    def restore(self, node: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(n for n in self.past if self.past[n])), label="name")
        epoch, publisher = self._an_epoch(name, data), self.nodes[node](name)
        try:
            restore(publisher, epoch, expected=publisher.snapshots.strong().token)
        except SnapshotExpired:
            assert self._has_left(name, epoch)
        else:
            self.rows[name] = copied(self.past[name][epoch])

    @precondition(lambda self: any(self.past.values()))
    @rule(node=nodes, data=st.data(), tag=st.sampled_from("xy"))
    def tag(self, node: int, data: st.DataObject, tag: str) -> None:
        name = data.draw(st.sampled_from(sorted(n for n in self.past if self.past[n])), label="name")
        if tag in self.tags[name]:
            remove_tag(self.nodes[node](name), tag)
            del self.tags[name][tag]
            return
        epoch = self._an_epoch(name, data)
        try:
            add_tag(self.nodes[node](name), tag, epoch)
        except SnapshotExpired:
            assert self._has_left(name, epoch)
        else:
            self.tags[name][tag] = epoch

    @precondition(lambda self: any(self.past.values()))
    @rule(
        node=nodes,
        data=st.data(),
        name=names,
        meanwhile=st.sampled_from(["nothing", "crash before", "crash after", "stall"]),
        at=st.integers(1, 24),
    )
    def branch(self, node: int, data: st.DataObject, name: str, meanwhile: str, at: int) -> None:
        """Whole, or interrupted at one of its calls: by a crash, or while all others collect."""
        source = data.draw(st.sampled_from(sorted(n for n in self.past if self.past[n])), label="source")
        epoch = self._an_epoch(source, data)
        calls = [0]

        def script(call: Call) -> Any:
            calls[0] += 1
            if calls[0] == at and meanwhile == "crash before":
                raise Crash
            if calls[0] == at and meanwhile == "stall":
                self.store.time += 4 * WINDOW
                self.store.script = None
                self.nodes[1 - node].collect(retention=WINDOW, grace=WINDOW)
                self.store.script = script
            result = call.carry_out()
            if calls[0] == at and meanwhile == "crash after":
                raise Crash
            return result

        mine = self.nodes[node].other() if "crash" in meanwhile else self.nodes[node]
        self.store.script = script
        try:
            mine.branch(source, name, epoch)
        except Crash:
            self.store.script = None
            if name in self.rows or not mine.exists(name):
                return
        except NamespaceExists:
            assert name in self.rows
            return
        except SnapshotExpired:
            self.store.script = None
            assert self._has_left(source, epoch)
            return
        except StorageConflict:  # it was fenced, or the marker was collected
            assert meanwhile == "stall"
            return
        finally:
            self.store.script = None
        self._began(name, copied(self.past[source][epoch]))

    @rule(node=nodes, name=names)
    def delete(self, node: int, name: str) -> None:
        try:
            self.nodes[node].delete(name)
        except NamespaceNotFound:
            assert name not in self.rows
        else:
            for known in (self.rows, self.past, self.tags):
                del known[name]

    @rule(node=nodes)
    def collect(self, node: int) -> None:
        self.nodes[node].collect(retention=WINDOW, grace=WINDOW)

    @rule(node=nodes, which=st.integers(0, 3))
    def collect_one(self, node: int, which: int) -> None:
        names = self.nodes[node].names()
        self.nodes[node].collect(names[which % len(names)], retention=WINDOW, grace=WINDOW)

    @rule(seconds=st.sampled_from([10, 300, 600, 2000]))
    def wait(self, seconds: int) -> None:
        self.store.time += seconds

    @rule(node=nodes)
    def restart(self, node: int) -> None:
        self.nodes[node] = self.nodes[node].other()

    @invariant()
    def every_namespace_and_every_tag_has_its_rows(self) -> None:
        world = self.nodes[0]
        assert {name for name in world.names() if world.exists(name)} == set(self.rows)
        for name, rows in self.rows.items():
            assert world.rows(name) == rows, name
            current = world.current(name)
            assert current is not None
            self.past[name][current.epoch] = copied(rows)
            for epoch in self.tags[name].values():
                assert world.rows(name, epoch) == self.past[name][epoch], (name, epoch)

    @invariant()
    def the_protocol_holds(self) -> None:
        self.nodes[0].check()

    def teardown(self) -> None:
        self.nodes[0].comes_to_nothing()


Histories.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
