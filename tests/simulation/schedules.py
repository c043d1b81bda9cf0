"""Directed schedules, for what chance brings about too rarely.

Each plays one interleaving, under a calm sky but for what its script says, against clients whose checks
are those of every run.
"""

from __future__ import annotations

from random import Random

from tests.simulation.clients import Archivist, Founder, Reader, Writer
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
        Founder(world, "founder", Random(0))._create(self.ledger)
        self.upsert()

    def upsert(self, node: Node | None = None) -> None:
        request = self.world.request("docs", "upsert")
        request.ids = (1,)
        writer = self.writer
        writer.submit(request, writer._call(request), writer._acknowledge, node=node or self.node)

    def read(self, **more: float | str) -> None:
        self.reader.ask("docs", lambda node: self.reader._read(node, self.ledger, **more), node=self.node)

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
