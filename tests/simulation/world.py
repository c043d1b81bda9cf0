"""A run: nodes, clients and weather from one seed, then rest, and a last look at everything."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from unittest.mock import patch

from tests.simulation import clients
from tests.simulation.ledger import Auditor, Epoch, Kind, NamespaceLedger, PromiseBroken, Request
from tests.simulation.network import Climate, Link, Network, Weather
from tests.simulation.scheduler import Process, Scheduler
from tests.simulation.threads import simulated_threads
from vecstore import invariants
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import (
    InvalidArgument,
    StorageCorrupt,
    StorageMissing,
    VecstoreError,
)
from vecstore.maintenance.gc import named_objects
from vecstore.maintenance.policy import Policy
from vecstore.manifest.keys import current_key, history_key, namespace_prefix
from vecstore.observe import Counted, Observer
from vecstore.storage.memory import MemoryStore
from vecstore.types import RowId


@dataclass(frozen=True)
class Setup:
    """What a seed decides about a run as a whole.

    Attributes
    ----------
    grace, retention
        Seconds, of collection. Everything that takes long is measured by the grace.
    whole_seconds
        Whether the store tells times as S3 does: in whole seconds, by clocks that differ a little.
    coded
        Whether parts have lists and codes, so that a merge moves rows about.
    commits, keys
        How many recent commits and idempotency keys a manifest holds.
    written
        Namespaces that writers choose from; one that is named twice is chosen twice as often.
    crew
        Kinds of clients, and how many there are of each.
    pace
        What the time between two acts of a client is multiplied by.
    """

    seed: int
    steps: int
    nodes: int = 3
    grace: float = 60.0
    retention: float = 60.0
    whole_seconds: bool = False
    coded: bool = False
    commits: int = 1_000
    keys: int = 1_000
    climate: Climate = field(default_factory=Climate)
    namespaces: tuple[str, ...] = ("docs", "auto", "bank", "fleeting")
    written: tuple[str, ...] = ("docs", "docs", "auto", "fleeting")
    crew: tuple[tuple[str, int], ...] = (
        ("Writer", 5),
        ("Bank", 2),
        ("Reader", 2),
        ("Archivist", 2),
        ("Founder", 2),
        ("Historian", 1),
        ("Compactor", 2),
        ("Collector", 1),
    )
    pace: float = 1.0

    @classmethod
    def of(cls, seed: int, steps: int) -> Setup:
        rng = Random(f"setup {seed}")
        grace = rng.choice((20.0, 120.0, 3600.0))
        kind = rng.choice((cls.spread, cls.crowded, cls.restless, cls.branching))
        if seed % 7 == 0:
            kind = cls.copied
        return kind(
            seed=seed,
            steps=steps,
            nodes=rng.choice((2, 3, 4)),
            grace=grace,
            retention=grace * rng.choice((0.5, 1.0, 2.0)),
            whole_seconds=rng.random() < 0.5,
            coded=rng.random() < 0.3,
            commits=rng.choice((16, 1_000)),
            keys=rng.choice((6, 1_000)),
            climate=replace(Climate(), crash=rng.choice((0.0, 0.002, 0.005))),
        )

    @classmethod
    def spread(cls, **more: Any) -> Setup:
        """Everybody does everything."""
        return cls(**more)

    @classmethod
    def directed(cls) -> Setup:
        """For a schedule that is played to its end."""
        return cls(seed=1, steps=0, namespaces=("docs", "fork"))

    @classmethod
    def crowded(cls, **more: Any) -> Setup:
        """Many clients of few nodes contend for one namespace: commits go in groups."""
        crew = (
            ("Writer", 8),
            ("Reader", 3),
            ("Archivist", 2),
            ("Founder", 1),
            ("Historian", 1),
            ("Compactor", 2),
            ("Collector", 1),
        )
        return cls(
            **more | {"nodes": 2, "namespaces": ("docs",), "written": ("docs",), "crew": crew, "pace": 0.2}
        )

    @classmethod
    def copied(cls, **more: Any) -> Setup:
        """Namespaces are copied to another store, by several nodes at once, and collected there."""
        crew = (
            ("Writer", 5),
            ("Reader", 1),
            ("Archivist", 1),
            ("Founder", 2),
            ("Historian", 2),
            ("Compactor", 2),
            ("Collector", 1),
            ("Copier", 3),
        )
        names = ("docs", "auto", "fleeting")
        return cls(**more | {"namespaces": names, "written": names, "crew": crew, "pace": 0.5})

    @classmethod
    def restless(cls, **more: Any) -> Setup:
        """A namespace is dropped and made anew all the time, while it is written to and read."""
        crew = (
            ("Writer", 6),
            ("Reader", 2),
            ("Archivist", 1),
            ("Founder", 3),
            ("Historian", 1),
            ("Compactor", 1),
            ("Collector", 1),
        )
        names = ("fleeting",)
        return cls(**more | {"namespaces": names, "written": names, "crew": crew, "pace": 0.3})

    @classmethod
    def branching(cls, **more: Any) -> Setup:
        """A namespace, a branch of it, and a branch of that come and go, while each is written to."""
        crew = (
            ("Writer", 5),
            ("Reader", 2),
            ("Archivist", 1),
            ("Founder", 4),
            ("Historian", 1),
            ("Compactor", 1),
            ("Collector", 2),
        )
        names = ("fleeting", "fork", "twig")
        return cls(**more | {"namespaces": names, "written": names, "crew": crew, "pace": 0.3})


@dataclass
class Answer:
    """What a client gets to know of a call: nothing, if its node died or it lost patience."""

    text: str = ""
    given_up: bool = False


@dataclass
class Report:
    """How a run went."""

    setup: Setup
    steps: int
    seconds: float
    digest: str
    counts: dict[str, int]
    faults: dict[str, int]


class _NothingLost(Observer):
    """Hears of a commit that its writer was told of and does not find under what others have built."""

    def count(self, what: Counted, by: float = 1) -> None:
        if what == "commits_lost":
            raise PromiseBroken("P4: a commit was lost whose answer the store had given")


class Node:
    """A process that serves calls; it comes back some time after it died, and knows nothing."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number
        self._lives = 0
        self.start()

    def start(self) -> None:
        world = self._world
        self._lives += 1
        self.process = Process(f"node {self._number}.{self._lives}")
        self._seen: dict[str, int] = {}
        self.db = EmbeddedDatabase(
            Link(world.network, self.process),
            policy=Policy(fan_in=4, tiny_parts=4),
            threads=1,
            rng=Random(f"{world.setup.seed} {self.process.name}"),
            clock=lambda: world.now,
            sleep=world.scheduler.sleep,
            observer=_NothingLost(),
        )

    def seen(self, namespace: str) -> int:
        """The newest epoch that this process has answered with."""
        return self._seen.get(namespace, 0)

    def saw(self, namespace: str, epoch: int) -> None:
        self._seen[namespace] = max(self.seen(namespace), epoch)


class World:
    """Everything of one run."""

    def __init__(self, setup: Setup, scheduler: Scheduler) -> None:
        self.setup = setup
        self.scheduler = scheduler
        rng = Random(f"weather {setup.seed}")
        self.weather = Weather(self.scheduler, rng, setup.climate, scale=setup.grace)
        self.inner = MemoryStore("simulated", clock=self._store_clock)
        self.network = Network(self.scheduler, self.inner, self.weather, self._landed, self._crash)
        self.backup = MemoryStore("backup", clock=self._store_clock)
        self.backups = Network(self.scheduler, self.backup, self.weather, self._backed_up, self._crash)
        self._skew = Random(f"clock {setup.seed}")
        auditor = Auditor(self.inner)
        self.auditor = auditor
        self.ledgers = {
            name: NamespaceLedger(name, auditor, retention=setup.retention) for name in setup.namespaces
        }
        self.serial = 0
        self.closing = False
        self.resting = False
        self.counts: dict[str, int] = {}
        self._quiet_until = 0.0
        self._rng = Random(f"seasons {setup.seed}")
        self.nodes = [Node(self, number) for number in range(1, setup.nodes + 1)]

    @property
    def now(self) -> float:
        return self.scheduler.now

    # -- for clients -------------------------------------------------------------------------

    def request(self, namespace: str, kind: Kind, *, key: str | None = None) -> Request:
        self.serial += 1
        return Request(self.serial, namespace, kind, key=key)

    def identity(self, namespace: str, number: int) -> RowId:
        return f"row-{number}" if namespace in clients.DROPPED else number * 1_000_003

    def settings(self, namespace: str) -> dict[str, Any]:
        if self.setup.coded and namespace != "bank":
            return {"small_part_threshold": 0, "list_rows": 2}
        return {}

    def any_node(self, rng: Random) -> Node:
        return rng.choice(self.nodes)

    def answer(self) -> Answer:
        return Answer()

    def think(self, rng: Random, pace: float, *, at_least: float = 0.0, in_quiet: bool = False) -> bool:
        """Let time pass; False once nothing more is to be asked."""
        wait = at_least + rng.expovariate(1 / pace) * self.setup.pace
        if self.now < self._quiet_until:
            left = self._quiet_until - self.now
            wait += min(left, self.setup.grace * (0.2 + rng.random())) if in_quiet else left
        self.scheduler.sleep(wait)
        return not self.resting

    def send(
        self, node: Node, what: str, serve: Callable[[], None], told: Answer, patience: float = math.inf
    ) -> None:
        """A call to a node; until it is answered, the node is dead, or patience is lost."""
        me = self.scheduler.current
        assert me is not None
        call = self.scheduler.spawn(what, serve, process=node.process)
        if patience < math.inf:
            give_up = self.now + patience
            self.scheduler.at(give_up, lambda: self.scheduler.wake(me))
            call._waiting.append(me)
            while not call.finished and self.now < give_up:
                self.scheduler.block()
            told.given_up = not call.finished
        else:
            self.scheduler.join(call)

    def count(self, what: str, times: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + times

    # -- what may be answered ----------------------------------------------------------------

    def check_error(self, error: VecstoreError, began: float) -> None:
        """Errors that a client may get. What is missing may only be missed after a long stall (R10)."""
        self.count(f"error: {error.code}")
        if isinstance(error, StorageMissing):
            if self.now - began > min(self.setup.retention, self.setup.grace) - 5.0:
                return
        elif isinstance(error, StorageCorrupt):
            if self.setup.climate.swap:
                return
        elif not isinstance(error, InvalidArgument):
            return
        raise PromiseBroken(f"a call was answered by {type(error).__name__}: {error}") from error

    def check_gone(self, ledger: NamespaceLedger, first: int, error: VecstoreError) -> None:
        """A namespace may only be missed if it was dropped since ``first`` was current."""
        if first:
            one = ledger.epoch(first).incarnation
            if one is not None and not ledger.some_epoch(first, lambda epoch: epoch.incarnation != one):
                raise PromiseBroken(f"{ledger.name}: {error}") from error

    # -- a run -------------------------------------------------------------------------------

    def run(self, play: Callable[[World], None] | None = None) -> Report:
        """All clients until so many steps are done; with ``play``, that in their place, to its end."""
        start = self.now
        if play is not None:
            self.network.calm = True
            task = self.scheduler.spawn("play", lambda: play(self))
            return self._to_the_end(start, lambda: task.finished)
        for kind, number in self.setup.crew:
            for i in range(1, number + 1):
                name = f"{kind.lower()} {i}"
                client = getattr(clients, kind)(self, name, Random(f"{name} {self.setup.seed}"))
                self.scheduler.spawn(name, client.run)
        self._season()
        return self._to_the_end(start, lambda: self.network.steps >= self.setup.steps)

    def _to_the_end(self, start: float, done: Callable[[], bool]) -> Report:
        try:
            self.scheduler.run(done)
            self.resting = self.network.calm = self.backups.calm = True
            self._quiet_until = 0.0
            self.scheduler.run(lambda: False)
            self._look_at_everything()
        finally:
            self.closing = True
            self.scheduler.close()
        for name, ledger in self.ledgers.items():
            self.count(f"epochs of {name}", ledger.current)
        return Report(
            self.setup,
            self.network.steps,
            self.now - start,
            self.network.digest,
            self.counts,
            self.network.faults,
        )

    def _season(self) -> None:
        """Busy times and quiet ones, in which only maintenance acts and whoever stalled wakes up."""
        if self.resting:
            return
        self.weather.turn()
        busy = self._rng.uniform(1.0, 5.0)
        quiet = self._rng.choice((0.1, 1.5, 3.0)) * self.setup.grace * (0.5 + self._rng.random())

        def rest() -> None:
            self._quiet_until = self.now + quiet
            self.scheduler.at(self._quiet_until, self._season)

        self.scheduler.at(self.now + busy, rest)

    def _look_at_everything(self) -> None:
        """At rest every request has an outcome, every epoch a reason, and collection leaves no orphan."""
        for ledger in self.ledgers.values():
            ledger.judge_all()
        self.scheduler.now += 10 * max(self.setup.grace, self.setup.retention)
        db = EmbeddedDatabase(self.inner, rng=Random(0), clock=lambda: self.now)
        for name, ledger in self.ledgers.items():
            if not ledger.epochs:
                continue
            self._check(name)
        for name, ledger in self.ledgers.items():
            if not ledger.epochs:
                continue
            for _ in range(2):  # a barrier makes an epoch more, whose predecessor the next run takes
                self.scheduler.now += 100.0
                db.collect(name, retention=10.0, grace=10.0, dry_run=False)
            self._check(name)
            self._check_orphans(name, ledger.epochs[-1])

        for name in self.backup.list_children("namespaces/"):
            if not self.backup.list(current_key(name)).objects:
                continue  # no copy came to its end
            wrong = invariants.check_namespace(self.backup, name)
            if wrong:
                raise PromiseBroken(f"copy of {name}: {'; '.join(f'{w.rule}: {w.message}' for w in wrong)}")

    def _check(self, name: str) -> None:
        current = self.ledgers[name].epochs[-1].manifest
        wrong = invariants.check_namespace(self.inner, name, read_ids=self.auditor.ids(current))
        if wrong:
            raise PromiseBroken(f"{name}: {'; '.join(f'{w.rule}: {w.message}' for w in wrong)}")

    def _check_orphans(self, name: str, last: Epoch) -> None:
        there = {meta.key for meta in self.inner.list(namespace_prefix(name), limit=100_000).objects}
        read = invariants.history.read_current(self.inner, name).manifest
        needed = {current_key(name), *named_objects(read)}
        needed |= {history_key(name, e) for e in range(read.history_floor - 1, read.epoch + 1)}
        for pin in read.pins:
            needed.add(history_key(name, pin.epoch))
            needed.update(named_objects(invariants.history.read_copy(self.inner, name, pin.epoch).manifest))
        orphans = {key for key in there - needed if "/_control/" not in key}
        if orphans:
            raise PromiseBroken(f"{name}: collection leaves {sorted(orphans)}; floor {read.history_floor}")

    def _store_clock(self) -> float:
        if not self.setup.whole_seconds:
            return self.now
        return float(math.floor(self.now + self._skew.uniform(-0.5, 0.5)))

    def _landed(self, method: str, key: str) -> None:
        name = key.split("/")[1]
        if method == "delete":
            for ledger in self.ledgers.values():
                ledger.deleted(key, self.now)
        elif key == current_key(name):
            self.ledgers[name].switched(self.now)

    def _backed_up(self, method: str, key: str) -> None:
        """Whatever is current in the other store is whole, and a state that this one went through."""
        name = key.split("/")[1]
        if method != "delete" and key != current_key(name):
            return
        try:
            manifest = invariants.history.read_current(self.backup, name).manifest
        except StorageMissing:
            return
        wrong = invariants.check_objects(self.backup, manifest)
        if wrong:
            raise PromiseBroken(f"copy of {name}: {wrong[0].rule}: {wrong[0].message}")
        if method != "delete" and manifest.state == "active":
            clients.check_copy(self, name, manifest)

    def _crash(self, process: Process) -> None:
        """The process dies, and its node comes back after a while."""
        node = next(node for node in self.nodes if node.process is process)
        self.network.note(process.name, "dies")
        self.network.lose_connections(process)
        self.scheduler.kill(process)
        self.scheduler.at(self.now + self._rng.expovariate(1 / 1.0), node.start)


@contextmanager
def simulated(setup: Setup) -> Iterator[World]:
    """A world, with the library's threads on its scheduler and limits that a short run reaches."""
    with ExitStack() as stack:
        for module in ("manifest.attempt", "manifest.history", "invariants"):
            stack.enter_context(patch(f"vecstore.{module}.MAX_RECENT_COMMITS", setup.commits))
        for module in ("manifest.attempt", "invariants"):
            stack.enter_context(patch(f"vecstore.{module}.MAX_IDEMPOTENCY_KEYS", setup.keys))
        log = logging.getLogger("vecstore")
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        scheduler = Scheduler()
        stack.enter_context(simulated_threads(scheduler))
        yield World(setup, scheduler)


def simulate(setup: Setup, play: Callable[[World], None] | None = None) -> Report:
    """Run a seed, or a directed schedule. What is raised has notes that say how to see it again."""
    with simulated(setup) as world:
        try:
            return world.run(play)
        except Exception as broken:
            broken.add_note("\n".join(world.network.trace))
            broken.add_note(f"seed {setup.seed}, after {world.network.steps} steps of {setup.steps}")
            raise
