"""Directed schedules, for what chance brings about too rarely.

Each plays one interleaving, under a calm sky but for what its script says, against clients whose checks
are those of every run.
"""

from __future__ import annotations

from random import Random

from tests.simulation.clients import Archivist, Collector, Compactor, Founder, Historian, Reader, Writer
from tests.simulation.ledger import Kind
from tests.simulation.network import Act
from tests.simulation.world import Node, World

CURRENT = "docs/manifest/current"


class _Cast:
    """A namespace of one row, and clients that do as they are told, on one node if no other is named."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ledger = world.ledgers["docs"]
        self.node = world.nodes[0]
        self.writer = Writer(world, "writer", Random(0))
        self.reader = Reader(world, "reader", Random(0))
        self.archivist = Archivist(world, "archivist", Random(0))
        self.historian = Historian(world, "historian", Random(0))
        self.compactor = Compactor(world, "compactor", Random(0))
        self.collector = Collector(world, "collector", Random(0))
        self.founder = Founder(world, "founder", Random(0))
        self.founder.create(self.ledger)
        self.upsert()

    def upsert(self, node: Node | None = None, *, identity: int = 1) -> None:
        self._write("upsert", identity, node)

    def delete(self, identity: int) -> None:
        self._write("delete", identity, None)

    def _write(self, kind: Kind, identity: int, node: Node | None) -> None:
        request = self.world.request("docs", kind)
        request.ids = (identity,)
        writer = self.writer
        writer.submit(request, writer.call(request), writer.acknowledge, node=node or self.node)

    def compact(self) -> None:
        self.compactor.ask(
            "docs", lambda node: self.compactor.compact(node, self.ledger, True), node=self.node
        )

    def collect(self, node: Node | None = None) -> None:
        collector = self.collector
        collector.ask("docs", lambda node: collector.collect(node, self.ledger), node=node or self.node)

    def read(self, **more: float | str) -> None:
        self.reader.ask("docs", lambda node: self.reader.read(node, self.ledger, **more), node=self.node)

    def read_by_name(self, epoch: int) -> None:
        self.archivist.ask(
            "docs", lambda node: self.archivist.by_name(node, self.ledger, epoch), node=self.node
        )


def in_doubt_until_the_deadline(world: World) -> None:
    """R2: a commit lands, its answer is lost, and so is that of the look for it, until time has run out."""
    cast = _Cast(world)
    world.network.script = [
        Act("put_if_match", CURRENT, back=40.0, lose=True),
        Act("get_if_changed", CURRENT, lose=True),
    ]
    cast.upsert()


def slept_through_collection(world: World) -> None:
    """R3: a writer has uploaded its part and sleeps, while collection takes what nobody names."""
    cast, scheduler = _Cast(world), world.scheduler
    grace = world.setup.grace
    world.network.script = [Act("put_stream", ".part", back=10 * grace)]
    writing = scheduler.spawn("write", cast.upsert)
    scheduler.sleep(3 * grace)
    cast.collect(world.nodes[1])
    scheduler.join(writing)


def restored_while_it_is_compacted(world: World) -> None:
    """R8: a restore brings a row back to life whose death a compaction has seen."""
    cast, scheduler = _Cast(world), world.scheduler
    cast.upsert(identity=2)
    both = cast.ledger.epoch(cast.ledger.current)
    cast.delete(1)
    world.network.script = [Act("put_if_match", CURRENT, travel=5.0)]
    compacting = scheduler.spawn("compact", cast.compact)
    scheduler.sleep(2.0)
    cast.historian.restore(cast.ledger, both)
    scheduler.join(compacting)


def branched_too_late(world: World) -> None:
    """R9: whoever makes a branch stalls after the pin, until collection gives the branch up."""
    cast, scheduler = _Cast(world), world.scheduler
    grace = world.setup.grace
    world.network.script = [Act("put_if_absent", "fork/manifest/current", travel=20 * grace)]
    branching = scheduler.spawn("branch", lambda: cast.founder.branch(world.ledgers["fork"], cast.ledger))
    scheduler.sleep(1.0)
    cast.upsert(world.nodes[1])
    cast.upsert(world.nodes[1])
    cast.node = world.nodes[1]
    for _ in range(3):
        scheduler.sleep(3 * grace)
        cast.compact()
        cast.collect()
    scheduler.join(branching)


def answers_out_of_order(world: World) -> None:
    """R14: a commit is answered late, when this process has long seen what another made of it."""
    cast, scheduler = _Cast(world), world.scheduler
    world.network.script = [Act("put_if_match", CURRENT, back=2.0)]
    writing = scheduler.spawn("write", cast.upsert)
    scheduler.sleep(1.0)
    cast.upsert(world.nodes[1])
    cast.read()
    scheduler.join(writing)
    cast.read(consistency="eventual", max_staleness=60.0)


def replaced_while_it_is_looked_for(world: World) -> None:
    """R15: the copy is not there yet, and then the epoch is not current any more."""
    cast, scheduler = _Cast(world), world.scheduler
    epoch = cast.ledger.current
    world.network.script = [Act("get", CURRENT, travel=5.0)]
    reading = scheduler.spawn("read", lambda: cast.read_by_name(epoch))
    scheduler.sleep(1.0)
    cast.upsert()
    scheduler.join(reading)
