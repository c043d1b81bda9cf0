"""Any order of writes, deletes, lost answers, deletions, creations and collections keeps the promises.

A hypothesis state machine runs three publishers over one store whose clock and failures it decides,
beside a model that knows which rows must be alive. The invariants are checked after every step. A
failing run prints the steps to repeat it.
"""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pyroaring import BitMap

from tests.manifest.helpers import (
    NS,
    AddPart,
    Call,
    ScriptedStore,
    change,
    make_publisher,
    timed_out,
    upload,
)
from vecstore.errors import NamespaceExists, NamespaceNotFound, OutcomeUnknown
from vecstore.invariants import check_namespace
from vecstore.maintenance.gc import collect
from vecstore.manifest import history
from vecstore.manifest.lifecycle import create_namespace, delete_namespace
from vecstore.manifest.model import Part
from vecstore.manifest.tombstones import read_tombstone

N = 8  # rows a part
nodes = st.integers(0, 2)
fates = st.lists(st.sampled_from(["answered", "lost after", "lost before"]), max_size=4)


class Protocol(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = ScriptedStore()
        self.store.tick = 1.0
        self.publishers = [make_publisher(self.store, seed) for seed in range(3)]
        self.fates: list[str] = []
        self.store.script = self._script
        self.alive: dict[str, set[int]] | None = None  # rows of each part; None: no namespace
        self.stalled: list[tuple[int, Part, str]] = []  # uploads whose commit is yet to come
        self.incarnation = ""

    def _script(self, call: Call) -> Any:
        """Each switch meets the next fate; without one, it is answered."""
        if call.op == "put_if_match" and self.fates:
            fate = self.fates.pop(0)
            if fate == "lost after":
                call.carry_out()
            if fate != "answered":
                raise timed_out(call)
        return call.carry_out()

    def _commit(self, node: int, request: AddPart) -> Any:
        return self.publishers[node].commit(request)

    @initialize()
    def start(self) -> None:
        self.create(0)

    @rule(node=nodes)
    def create(self, node: int) -> None:
        publisher = self.publishers[node]
        try:
            made = create_namespace(
                self.store, NS, dim=4, metric="l2", publisher=publisher, rng=Random(len(self.store.calls))
            )
        except NamespaceExists:
            assert self.alive is not None
            return
        assert self.alive is None
        self.alive = {}
        self.incarnation = made.manifest.incarnation

    @precondition(lambda self: self.alive is not None)
    @rule(node=nodes, fates=fates, prepare=st.booleans())
    def insert(self, node: int, fates: list[str], prepare: bool) -> None:
        publisher = self.publishers[node]
        part = upload(publisher, N)
        if prepare:
            publisher.prepare()
        self.fates = fates
        self._commit(node, change(publisher, part=part, incarnation=self.incarnation))
        assert self.alive is not None
        self.alive[part.id] = set(range(N))

    @precondition(lambda self: self.alive is not None)
    @rule(node=nodes)
    def upload_and_stall(self, node: int) -> None:
        self.stalled.append((node, upload(self.publishers[node], N), self.incarnation))

    @precondition(lambda self: self.stalled)
    @rule(fates=fates)
    def wake_up_and_commit(self, fates: list[str]) -> None:
        node, part, incarnation = self.stalled.pop(0)
        publisher = self.publishers[node]
        request = change(publisher, part=part, incarnation=incarnation)
        request.reupload = lambda: upload(publisher, N)
        self.fates = fates
        try:
            self._commit(node, request)
        except NamespaceNotFound:
            assert self.alive is None or incarnation != self.incarnation
            return
        assert self.alive is not None
        assert incarnation == self.incarnation
        assert request.part is not None
        self.alive[request.part.id] = set(range(N))

    @precondition(lambda self: self.alive)
    @rule(node=nodes, data=st.data(), fates=fates)
    def kill(self, node: int, data: st.DataObject, fates: list[str]) -> None:
        assert self.alive is not None
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.alive)), min_size=1, max_size=3, unique=True))
        rows = data.draw(st.sets(st.integers(0, N - 1), min_size=1))
        self.fates = fates
        committed = self._commit(
            node, change(self.publishers[node], kills={part_id: sorted(rows) for part_id in chosen})
        )
        died = sum(len(self.alive[part_id] & rows) for part_id in chosen)
        assert committed.answer == {"killed": died}
        for part_id in chosen:
            self.alive[part_id] -= rows

    @precondition(lambda self: self.alive is not None and len(self.alive) > 1)
    @rule(node=nodes, data=st.data(), fates=fates)
    def compact(self, node: int, data: st.DataObject, fates: list[str]) -> None:
        """Replace parts by one whose rows are those alive, whatever has died by then (R6, R16)."""
        assert self.alive is not None
        sources = data.draw(st.lists(st.sampled_from(sorted(self.alive)), min_size=2, unique=True))
        publisher = self.publishers[node]
        merged = upload(publisher, N * len(sources))

        def carry_over(draft: Any) -> None:
            dead = [N * i + row for i, source in enumerate(sources) for row in _dead(draft, source)]
            draft.remove_parts(sources)
            draft.add_part(merged)
            draft.kill(merged.id, BitMap(dead))

        def _dead(draft: Any, source: str) -> list[int]:
            return [row for row in draft.dead(source) if row < N]

        if any(len(self.alive[source]) and max(self.alive[source]) >= N for source in sources):
            return  # merged ones keep more rows than this model maps
        self.fates = fates
        self._commit(node, change(publisher, before=carry_over))
        self.alive[merged.id] = {
            N * i + row for i, source in enumerate(sources) for row in self.alive.pop(source)
        }

    @precondition(lambda self: self.alive is not None)
    @rule(node=nodes, fates=fates)
    def delete(self, node: int, fates: list[str]) -> None:
        self.fates = fates
        delete_namespace(self.store, NS, incarnation=self.incarnation, publisher=self.publishers[node])
        self.alive = None

    @rule(node=nodes, fates=fates)
    def collect(self, node: int, fates: list[str]) -> None:
        self.fates = fates
        collect(self.store, NS, publisher=self.publishers[node], retention=500, grace=500)

    @rule(seconds=st.integers(1, 1000))
    def wait(self, seconds: int) -> None:
        self.store.time += seconds

    @rule(node=nodes)
    def restart(self, node: int) -> None:
        self.publishers[node] = make_publisher(self.store, 100 + len(self.store.calls))

    @rule(node=nodes)
    def storage_is_away(self, node: int) -> None:
        """A write in doubt is told as such, and is either whole or not there."""
        if self.alive is None:
            return
        publisher = self.publishers[node]
        part = upload(publisher, N)
        self.fates = ["lost before"] * 10_000
        try:
            self._commit(node, change(publisher, part=part))
        except OutcomeUnknown:
            pass
        else:
            raise AssertionError("acknowledged, and nothing was written")
        finally:
            self.fates = []

    @invariant()
    def nothing_is_lost_and_nothing_is_resurrected(self) -> None:
        self.fates = []
        manifest = history.read_current(self.store, NS).manifest
        assert (manifest.state == "active") == (self.alive is not None)
        found = {}
        for part in manifest.parts:
            dead = (
                BitMap() if part.tombstone is None else read_tombstone(self.store, part.tombstone, n=part.n)
            )
            found[part.id] = set(range(part.n)) - set(dead)
        assert found == (self.alive or {})

    @invariant()
    def the_protocol_holds(self) -> None:
        assert check_namespace(self.store, NS) == []


Protocol.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestProtocol = Protocol.TestCase
