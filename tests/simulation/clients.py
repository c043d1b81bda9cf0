"""Who asks for what: writers, readers, a bank, those who make and drop namespaces, and maintenance.

A client is a task of no process: it sends a call to a node, as over HTTP, and may hear nothing of it.
What it draws comes from its own generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.simulation.ledger import (
    DIM,
    GROUP,
    MARKS,
    Attempt,
    Content,
    Epoch,
    Kind,
    NamespaceLedger,
    PromiseBroken,
    Request,
    named_by,
    value_of,
    vector_of,
)
from tests.simulation.network import Link
from vecstore.engine.database import EmbeddedDatabase
from vecstore.errors import (
    Diverged,
    IdExists,
    NamespaceExists,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RowNotFound,
    SnapshotExpired,
    StorageCorrupt,
    StorageMissing,
    TagNotFound,
    VecstoreError,
)
from vecstore.maintenance.copying import copy_store
from vecstore.maintenance.gc import collect
from vecstore.manifest import history
from vecstore.manifest.lifecycle import delete_namespace
from vecstore.manifest.model import Copied, Manifest
from vecstore.types import Hits, RowId, SearchParams

if TYPE_CHECKING:
    from tests.simulation.world import Node, World

EXACT: dict[str, Any] = {
    "top_k": 1000,
    "probe_fraction": 1.0,
    "rerank_precision": "fp32",
    "rerank_scale": 1000.0,
    "include": ("vector",),
    "exclude": (),  # all attributes
}
ACCOUNTS = tuple(range(1, 9))  # of the bank: half of them in either group, always
BRANCHES = {"fork": "fleeting", "twig": "fork"}  # and what they are made from
DROPPED = ("fleeting", "fork", "twig")
IDS = 14  # that writers of one namespace contend for


KINDS: tuple[Kind, ...] = (
    *("upsert",) * 3,
    "insert",
    *("patch",) * 3,
    *("absent", "newer", "delete"),
    *("mark", "erase"),
)


class Client:
    """What all clients share."""

    def __init__(self, world: World, name: str, rng: Random) -> None:
        self.world = world
        self.name = name
        self.rng = rng

    def run(self) -> None:
        """Until the world comes to rest."""
        while self.world.think(self.rng, self.pace):
            self.act()

    pace = 0.3  # seconds between two acts, on average

    def act(self) -> None:
        raise NotImplementedError

    def ledger(self, names: Sequence[str]) -> NamespaceLedger:
        return self.world.ledgers[self.rng.choice(names)]

    def submit(
        self,
        request: Request,
        run: Callable[[EmbeddedDatabase], Any],
        acknowledge: Callable[[Attempt, Any], None],
        *,
        node: Node | None = None,
        excused: Callable[[Attempt, VecstoreError], None] = lambda attempt, error: None,
    ) -> str:
        """One attempt of a write, on a node; how it ended, as the client sees it.

        The client may lose patience. What became of the call then is told to nobody.
        """
        world = self.world
        ledger = world.ledgers[request.namespace]
        node = node if node is not None else world.any_node(self.rng)
        attempt = ledger.begin(request, world.now)
        told = world.answer()

        def serve() -> None:
            ended = False
            try:
                answer = run(node.db)
            except OutcomeUnknown:
                pass
            except VecstoreError as error:
                ended = not told.given_up
                if ended:
                    world.check_error(error, attempt.began_at)
                    excused(attempt, error)
                    ledger.refuse(attempt)
                    told.text = error.code
            else:
                ended = not told.given_up
                if ended:
                    acknowledge(attempt, answer)
                    if attempt.epoch:
                        node.saw(request.namespace, attempt.epoch)
                    told.text = "done"
                    world.count(f"{request.kind} acknowledged")
            finally:
                if not ended and attempt.state == "open" and not world.closing:
                    ledger.lose(attempt)

        patience = self.rng.choice((3.0, 60.0, float("inf")))
        world.send(node, f"{self.name} {request.kind} {request.namespace}", serve, told, patience)
        return told.text

    def ask(
        self, namespace: str, run: Callable[[Node], None], *, node: Node | None = None, what: str = "read"
    ) -> None:
        """A call that changes nothing that the ledger follows; ``run`` checks its answer."""
        node = node if node is not None else self.world.any_node(self.rng)
        self.world.send(node, f"{self.name} {what} {namespace}", lambda: run(node), self.world.answer())

    def read_all(
        self, node: Node, ledger: NamespaceLedger, check: Callable[[Hits], None] | None = None, **more: Any
    ) -> Hits | None:
        """Every row of one epoch, by a search; within a call of ``ask``."""
        world = self.world
        began, told, seen = world.now, ledger.told, node.seen(ledger.name)
        first, held = ledger.current, list(ledger.tags.values())
        params = SearchParams(**{**EXACT, **more})
        try:
            hits = node.db.search(ledger.name, np.zeros(DIM, np.float32), params)
        except NamespaceNotFound as error:
            world.check_gone(ledger, told if params.consistency == "strong" else 0, error)
            return None
        except SnapshotExpired as error:
            self._check_expired(ledger, params.epoch, first, held, error)
            return None
        except VecstoreError as error:
            world.check_error(error, began)
            return None
        if params.epoch is not None:
            at_least = params.epoch
            if hits.epoch != params.epoch:
                raise PromiseBroken(f"epoch {params.epoch} was asked for, {hits.epoch} answered")
        elif params.consistency == "strong":
            at_least = told
        else:
            at_least = max(seen, ledger.at(began - params.max_staleness))
        rows = rows_of(hits)
        ledger.check_read(hits.epoch, rows, at_least=at_least, incarnation=hits.incarnation)
        ledger.told = max(ledger.told, hits.epoch)
        if params.epoch is None:
            node.saw(ledger.name, hits.epoch)
        return hits

    def _check_expired(
        self,
        ledger: NamespaceLedger,
        number: int | None,
        first: int,
        held: Sequence[Epoch],
        error: VecstoreError,
    ) -> None:
        """``first`` was current and ``held`` had a tag when the call was made."""
        if number is None:
            raise PromiseBroken(f"{ledger.name}: the current epoch has expired: {error}") from error
        epoch = ledger.epoch(number)
        world = self.world
        anew = ledger.some_epoch(first, lambda other: other.incarnation != epoch.incarnation)
        if not anew and epoch in held and epoch in ledger.tags.values():
            raise PromiseBroken(f"{ledger.name}: epoch {number} has a tag: {error}") from error
        if not anew and epoch.replaced_at + world.setup.retention > world.now:
            age = world.now - epoch.replaced_at
            raise PromiseBroken(
                f"{ledger.name}: epoch {number} was refused {age:.1f} s after it was replaced: {error}"
            ) from error


def rows_of(hits: Hits) -> Content:
    assert hits.vectors is not None
    ids: list[RowId] = hits.ids.tolist()
    if len(set(ids)) != len(ids):
        raise PromiseBroken(f"a search of epoch {hits.epoch} gave an id twice: {sorted(ids, key=str)}")
    attributes = hits.attributes or [{}] * len(ids)
    return {i: value_of(v, some) for i, v, some in zip(ids, hits.vectors, attributes, strict=True)}


class Writer(Client):
    """Upserts, inserts, patches and deletes, of given and of assigned ids, some of them on a condition.

    Some are by filter, some under an idempotency key.
    """

    def act(self) -> None:
        rng = self.rng
        ledger = self.ledger(self.world.setup.written)
        kind = rng.choice(KINDS)
        if ledger.name == "auto":
            kind = rng.choice(("assign", "assign", "delete", "patch"))
        key = f"{self.name}-{self.world.serial + 1}" if rng.random() < 0.5 else None
        request = self.world.request(ledger.name, kind, key=key)
        request.marks = kind in ("upsert", "insert", "absent", "newer")
        if kind in ("patch", "mark"):
            request.attribute = rng.choice(MARKS)
        if kind in ("mark", "erase") or (kind in ("patch", "delete") and rng.random() < 0.3):
            request.bound = max(1, request.serial - rng.randrange(60))
        if kind in ("mark", "erase"):  # any row may be meant
            request.ids = tuple(self.world.identity(ledger.name, n) for n in range(IDS))
        elif kind == "assign":
            request.rows = rng.randint(1, 3)
        elif ledger.name == "auto":
            known = sorted(ledger.epochs[-1].content, key=str) if ledger.epochs else []
            if not known:
                return
            request.ids = tuple(rng.sample(known, min(len(known), rng.randint(1, 5))))
        else:
            numbers = rng.sample(range(IDS), rng.choice((1, 1, 2, 3)))
            request.ids = tuple(self.world.identity(ledger.name, n) for n in numbers)
        for _ in range(3 if key is not None else 1):
            outcome = self.submit(request, self.call(request), self.acknowledge, excused=self._excused)
            if outcome not in ("", "storage_unavailable", "outcome_unknown"):
                return
            if not self.world.think(rng, 0.5):
                return

    def call(self, request: Request) -> Callable[[EmbeddedDatabase], Any]:
        name, ids, key = request.namespace, list(request.ids), request.key
        more: dict[str, Any] = {"expected": None, "idempotency_key": key}
        older = [MARKS[0], "Lt", request.bound]
        if request.kind in ("mark", "erase"):
            more["filter"] = older
        elif request.bound:
            more["condition"] = older
        if request.kind in ("delete", "erase"):
            return lambda db: db.delete_rows(name, ids if request.kind == "delete" else None, **more)
        if request.kind == "patch":
            return lambda db: db.patch_rows(
                name, ids, {request.attribute: [request.serial] * len(ids)}, **more
            )
        if request.kind == "mark":
            return lambda db: db.patch_rows(name, None, {request.attribute: request.serial}, **more)
        rows = np.stack([vector_of((request.serial, r)) for r in range(len(ids) or request.rows)])
        more["mode"] = {"insert": "insert", "absent": "insert_if_absent"}.get(request.kind, "upsert")
        if request.marks:
            more["attributes"] = {mark: [request.serial] * len(ids) for mark in MARKS}
        if request.kind == "newer":
            more["condition"] = [MARKS[0], "Lt", {"$ref_new": MARKS[0]}]
        return lambda db: db.insert(name, rows, ids or None, **more)

    def acknowledge(self, attempt: Attempt, answer: Any) -> None:
        ledger = self.world.ledgers[attempt.request.namespace]
        kind = attempt.request.kind
        counted: Any
        match kind:
            case "delete" | "erase":
                counted = answer.deleted
            case "patch":
                counted = answer.patched, answer.absent
            case "mark":
                counted = answer.patched
            case "absent":
                counted = answer.n
            case "newer":
                counted = answer.upserted, answer.skipped
            case "assign":
                counted = answer.ids.tolist()
            case _:
                counted = answer.upserted
        ledger.acknowledge(attempt, counted, answer.epoch, answer.incarnation)

    def _excused(self, attempt: Attempt, error: VecstoreError) -> None:
        """A refusal that names a state of the namespace: it was in that state."""
        request = attempt.request
        ledger = self.world.ledgers[request.namespace]
        if isinstance(error, NamespaceNotFound):
            self.world.check_gone(ledger, attempt.began_after, error)
        if isinstance(error, IdExists) and not ledger.may_exist(request, attempt.began_after):
            raise PromiseBroken(f"{ledger.name}: {request}: {error}") from error


class Bank(Client):
    """Moves rows between two groups, always one each way in one commit; half are in either, ever."""

    def act(self) -> None:
        node = self.world.any_node(self.rng)
        ledger = self.world.ledgers["bank"]
        found: list[Hits] = []
        self.ask("bank", lambda node: self._look(node, found), node=node)
        if not found:
            return
        hits = found[0]
        accounts = {int(i): v[0] > 0 for i, v in zip(hits.ids, hits.vectors, strict=True)}
        request = self.world.request("bank", "upsert")
        if not accounts:
            request.ids = ACCOUNTS
            sides = [GROUP if i % 2 else -GROUP for i in ACCOUNTS]
        else:
            one = self.rng.choice([i for i, positive in accounts.items() if positive])
            other = self.rng.choice([i for i, positive in accounts.items() if not positive])
            request.ids, sides = (one, other), [-GROUP, GROUP]
        rows = np.stack([vector_of((request.serial, r), side) for r, side in enumerate(sides)])
        expected = (hits.incarnation, hits.epoch)

        def run(db: EmbeddedDatabase) -> Any:
            return db.insert(
                "bank", rows, list(request.ids), mode="upsert", expected=expected, idempotency_key=None
            )

        def acknowledge(attempt: Attempt, answer: Any) -> None:
            if answer.epoch != hits.epoch + 1:
                raise PromiseBroken(f"bank: if_match {hits.epoch} was applied in {answer.epoch}")
            ledger.acknowledge(attempt, answer.upserted, answer.epoch, answer.incarnation)

        def excused(attempt: Attempt, error: VecstoreError) -> None:
            if isinstance(error, PreconditionFailed) and ledger.current == hits.epoch:
                raise PromiseBroken(f"bank: {error}, and it has not") from error

        # Another node than was asked, at times.
        self.submit(request, run, acknowledge, excused=excused)

    def _look(self, node: Node, found: list[Hits]) -> None:
        hits = self.read_all(node, self.world.ledgers["bank"])
        if hits is not None:
            audit(hits)
            found.append(hits)


def audit(hits: Hits) -> None:
    """Each transfer is whole: every account is there once, and half of them in either group."""
    accounts = sorted(hits.ids.tolist())
    assert hits.vectors is not None
    there = int((hits.vectors[:, 0] > 0).sum())
    if accounts and (tuple(accounts) != ACCOUNTS or there * 2 != len(ACCOUNTS)):
        raise PromiseBroken(f"bank: epoch {hits.epoch} has accounts {accounts}, {there} of them in one group")


class Reader(Client):
    """Reads everything, or one row, strongly or not."""

    def act(self) -> None:
        ledger = self.ledger(self.world.setup.namespaces)
        node = self.world.any_node(self.rng)
        how = self.rng.random()
        if how < 0.35:
            self.ask(ledger.name, lambda node: self.read(node, ledger), node=node)
        elif how < 0.7:
            staleness = self.world.setup.retention * self.rng.choice((0.001, 0.05, 0.2))
            self.ask(
                ledger.name,
                lambda node: self.read(node, ledger, consistency="eventual", max_staleness=staleness),
                node=node,
            )
        elif ledger.name != "auto":
            identity = self.world.identity(ledger.name, self.rng.randrange(IDS))
            self.ask(ledger.name, lambda node: self._row(node, ledger, identity), node=node, what="row")

    def read(self, node: Node, ledger: NamespaceLedger, **more: Any) -> None:
        hits = self.read_all(node, ledger, **more)
        if hits is not None and ledger.name == "bank":
            audit(hits)

    def _row(self, node: Node, ledger: NamespaceLedger, identity: RowId) -> None:
        began, told = self.world.now, ledger.told
        try:
            row = node.db.row(ledger.name, identity, include_vector=True, epoch=None)
        except NamespaceNotFound as error:
            self.world.check_gone(ledger, told, error)
        except RowNotFound as error:
            if not ledger.some_epoch(told, lambda epoch: identity not in epoch.content):
                raise PromiseBroken(f"{ledger.name}: {error}") from error
        except VecstoreError as error:
            self.world.check_error(error, began)
        else:
            epoch = ledger.check_read(row.epoch, None, at_least=told, incarnation=row.incarnation)
            if epoch.content.get(identity) != value_of(row.vector, row.attributes):
                raise PromiseBroken(
                    f"{ledger.name}: epoch {row.epoch} has {identity} as {epoch.content.get(identity)},"
                    f" read as {value_of(row.vector, row.attributes)}"
                )
            ledger.told = max(ledger.told, row.epoch)
            node.saw(ledger.name, row.epoch)


class Archivist(Client):
    """Holds an epoch and reads it again and again, for as long as it is kept and somewhat longer."""

    def act(self) -> None:
        ledger = self.ledger(self.world.setup.namespaces)
        epochs: list[int] = []
        self.ask(ledger.name, lambda node: self._first(node, ledger, epochs))
        for epoch in epochs:
            for _ in range(self.rng.randint(1, 5)):
                wait = self.rng.choice((0.0, 0.0, 0.01, 0.3, 0.6)) * self.world.setup.retention
                if not self.world.think(self.rng, 0.2, at_least=wait):
                    return
                if self.rng.random() < 0.5:
                    self.ask(ledger.name, lambda node, e=epoch: self.read_all(node, ledger, epoch=e))
                else:
                    epoch = self.rng.choice((epoch, ledger.told))
                    self.ask(ledger.name, lambda node, e=epoch: self.by_name(node, ledger, e), what="epoch")

    def _first(self, node: Node, ledger: NamespaceLedger, epochs: list[int]) -> None:
        hits = self.read_all(node, ledger)
        if hits is not None:
            epochs.append(hits.epoch)

    def by_name(self, node: Node, ledger: NamespaceLedger, number: int) -> None:
        """As whoever walks history does, an epoch that may be replaced at this very moment too."""
        began, first, held = self.world.now, ledger.current, list(ledger.tags.values())
        try:
            found = history.read_epoch(node.db.store, ledger.name, number)
        except SnapshotExpired as error:
            self._check_expired(ledger, number, first, held, error)
        except VecstoreError as error:
            self.world.check_error(error, began)
        else:
            if found.manifest != ledger.epoch(number).manifest:
                raise PromiseBroken(f"{ledger.name}: epoch {number} is not what was current")


class Founder(Client):
    """Makes namespaces, and drops those that are meant to come and go."""

    pace = 2.0

    def act(self) -> None:
        ledger = self.ledger(self.world.setup.namespaces)
        last = ledger.epochs[-1] if ledger.epochs else None
        if last is None or last.incarnation is None:
            if ledger.name in BRANCHES:
                self.branch(ledger, self.world.ledgers[BRANCHES[ledger.name]])
            else:
                self.create(ledger)
        elif ledger.name in DROPPED:
            self._drop(ledger, last.incarnation)

    def create(self, ledger: NamespaceLedger) -> None:
        request = self.world.request(ledger.name, "create")
        settings = self.world.settings(ledger.name)

        def excused(attempt: Attempt, error: VecstoreError) -> None:
            if isinstance(error, NamespaceExists) and not ledger.some_epoch(
                attempt.began_after, lambda epoch: epoch.incarnation is not None
            ):
                raise PromiseBroken(f"{ledger.name}: {error}") from error

        self.submit(
            request,
            lambda db: db.create(ledger.name, DIM, "l2", settings, schema=dict.fromkeys(MARKS, "int")),
            lambda attempt, info: ledger.acknowledge(attempt, info.incarnation, info.epoch, info.incarnation),
            excused=excused,
        )

    def branch(self, ledger: NamespaceLedger, source: NamespaceLedger) -> None:
        """From an epoch that somebody has seen, of a namespace that may itself be a branch."""
        if not source.told:
            return
        epoch = source.epoch(max(1, source.told - self.rng.choice((0, 0, 1, 5))))
        request = self.world.request(ledger.name, "branch")
        request.source = epoch
        self.submit(
            request,
            lambda db: db.branch(source.name, ledger.name, epoch.number),
            lambda attempt, info: ledger.acknowledge(attempt, info.incarnation, info.epoch, info.incarnation),
        )

    def _drop(self, ledger: NamespaceLedger, incarnation: str) -> None:
        """The one that is meant is named, so that a retry cannot meet its successor."""
        named = incarnation if self.rng.random() < 0.7 else None
        request = self.world.request(ledger.name, "drop")
        request.incarnation = named
        for _ in range(3 if named is not None else 1):
            outcome = self.submit(
                request,
                lambda db: db.delete(ledger.name, incarnation=named),
                lambda attempt, _: ledger.dropped(attempt),
            )
            if outcome in ("done", "namespace_not_found") or not self.world.think(self.rng, 1.0):
                return


class Historian(Client):
    """Holds epochs by tags, and makes past ones current again."""

    pace = 0.7

    def __init__(self, world: World, name: str, rng: Random) -> None:
        super().__init__(world, name, rng)
        self._prefix = name.replace(" ", "-")
        self._tags = 0

    def act(self) -> None:
        ledger = self.ledger([name for name in self.world.setup.namespaces if name != "bank"])
        if not ledger.told:
            return
        mine = sorted(tag for tag in ledger.tags if tag.startswith(self._prefix))
        how = self.rng.random()
        if how < 0.4 and len(mine) < 3:
            self.ask(ledger.name, lambda node: self._tag(node, ledger), what="tag")
        elif how < 0.6 and mine:
            tag = self.rng.choice(mine)
            del ledger.tags[tag]
            self.ask(ledger.name, lambda node: self._untag(node, ledger, tag), what="untag")
        elif how < 0.8 and mine:
            epoch = ledger.tags[self.rng.choice(mine)].number
            self.ask(ledger.name, lambda node: self.read_all(node, ledger, epoch=epoch))
        else:
            known = [
                *(ledger.tags[tag] for tag in mine),
                ledger.epoch(max(1, ledger.told - self.rng.randrange(8))),
            ]
            epoch = self.rng.choice(known)
            for _ in range(3):  # others commit between a look and the restore upon it
                self.ask(ledger.name, lambda node: self._look(node, ledger))
                if self.restore(ledger, epoch) != "precondition_failed":
                    return

    def _look(self, node: Node, ledger: NamespaceLedger) -> None:
        self.read_all(node, ledger)

    def _tag(self, node: Node, ledger: NamespaceLedger) -> None:
        began, epoch = self.world.now, ledger.epoch(ledger.told)
        self._tags += 1
        tag = f"{self._prefix}-{self._tags}"
        first = ledger.current
        try:
            held = node.db.tag(ledger.name, tag, epoch.number)
        except OutcomeUnknown:
            return
        except SnapshotExpired as error:
            self._check_expired(ledger, epoch.number, first, (), error)
        except NamespaceNotFound as error:
            self.world.check_gone(ledger, epoch.number, error)
        except VecstoreError as error:
            self.world.check_error(error, began)
        else:
            if held.epoch != epoch.number:
                raise PromiseBroken(f"{ledger.name}: tag {tag} holds {held.epoch}, not {epoch.number}")
            ledger.tags[tag] = epoch
            self.world.count("tag acknowledged")

    def _untag(self, node: Node, ledger: NamespaceLedger, tag: str) -> None:
        began = self.world.now
        try:
            node.db.untag(ledger.name, tag)
        except (OutcomeUnknown, NamespaceNotFound, TagNotFound):
            return  # it may have gone with its namespace
        except VecstoreError as error:
            self.world.check_error(error, began)

    def restore(self, ledger: NamespaceLedger, epoch: Epoch) -> str:
        """Upon the newest epoch that anybody was told of."""
        seen = ledger.epoch(ledger.told)
        if seen.incarnation is None:
            return ""
        request = self.world.request(ledger.name, "restore")
        request.source = epoch
        expected = (seen.incarnation, seen.number)

        def acknowledge(attempt: Attempt, info: Any) -> None:
            if info.epoch != seen.number + 1:
                raise PromiseBroken(
                    f"{ledger.name}: a restore upon {seen.number} was applied in {info.epoch}"
                )
            ledger.acknowledge(attempt, None, info.epoch, info.incarnation)

        def excused(attempt: Attempt, error: VecstoreError) -> None:
            if isinstance(error, SnapshotExpired):
                self._check_expired(ledger, epoch.number, attempt.began_after, (), error)

        return self.submit(
            request,
            lambda db: db.restore(ledger.name, epoch.number, expected=expected),
            acknowledge,
            excused=excused,
        )


class Compactor(Client):
    """Merges parts whenever some are due."""

    pace = 1.0

    def act(self) -> None:
        ledger = self.ledger(self.world.setup.namespaces)
        everything = self.rng.random() < 0.2
        self.ask(ledger.name, lambda node: self.compact(node, ledger, everything), what="compact")

    def compact(self, node: Node, ledger: NamespaceLedger, everything: bool) -> None:
        began, first = self.world.now, ledger.current
        try:
            result = node.db.compact(ledger.name, everything=everything)
        except OutcomeUnknown:
            return
        except NamespaceNotFound as error:
            self.world.check_gone(ledger, first, error)
            return
        except VecstoreError as error:
            self.world.check_error(error, began)
            return
        self.world.count(f"compaction: {result.reason}")
        if result.reason == "thrown away":
            seen = ledger.epochs[max(first, 1) - 1 :]
            last = seen[-1].manifest
            left = {part.id for part in last.parts}
            gone = any(part.id not in left for epoch in seen for part in epoch.manifest.parts)
            # A merge may stall until the tombstones that it is about to read are replaced and collected.
            there = {meta.key for meta in self.world.inner.list("namespaces/", limit=100_000).objects}
            gone = gone or any(named_by(epoch.manifest) - there for epoch in seen)
            if not gone and seen[0].manifest.lineage == last.lineage:
                raise PromiseBroken(
                    f"{ledger.name}: a compaction was thrown away, and no source of it is gone"
                )


class Collector(Client):
    """Collects garbage, in quiet times too."""

    pace = 3.0

    def run(self) -> None:
        while self.world.think(self.rng, self.pace, in_quiet=True):
            ledger = self.ledger(self.world.setup.namespaces)
            self.ask(ledger.name, lambda node, ledger=ledger: self.collect(node, ledger), what="collect")

    def collect(self, node: Node, ledger: NamespaceLedger) -> None:
        began, first, setup = self.world.now, ledger.current, self.world.setup
        try:
            result = node.db.collect(ledger.name, retention=setup.retention, grace=setup.grace, dry_run=False)
        except OutcomeUnknown:
            return
        except NamespaceNotFound as error:
            if first:  # what is left of a namespace is collected too
                raise PromiseBroken(f"{ledger.name}: {error}") from error
        except VecstoreError as error:
            self.world.check_error(error, began)
        else:
            self.world.count("objects collected", 0 if result.dry_run else result.deleted)


class Copier(Client):
    """Copies namespaces to another store and collects them there."""

    pace = 2.0

    def act(self) -> None:
        ledger = self.ledger(self.world.setup.namespaces)
        job = self.copy if self.rng.random() < 0.7 else self.collect
        self.ask(ledger.name, lambda node: job(node, ledger), what="copy")

    def _others(self, node: Node) -> dict[str, Any]:
        world = self.world
        rng = Random(self.rng.random())
        return {"clock": lambda: world.now, "rng": rng, "sleep": world.scheduler.sleep}

    def copy(self, node: Node, ledger: NamespaceLedger) -> None:
        world, name = self.world, ledger.name
        began, told, first = world.now, ledger.told, ledger.current
        target = Link(world.backups, node.process)
        (found,) = copy_store(node.db.store, target, [name], **self._others(node)).namespaces
        if found.code is None:
            if found.epoch is None or found.epoch < told:
                raise PromiseBroken(f"{name}: epoch {found.epoch} was copied after {told} had been told")
            world.count("copies" if found.changed else "copies up to date")
        elif found.code == NamespaceNotFound.code:
            world.check_gone(ledger, told, NamespaceNotFound(str(found.message)))
        elif found.code == Diverged.code:
            self._give_way(node, ledger, first)
        elif found.code in (StorageMissing.code, StorageCorrupt.code):
            kind = StorageMissing if found.code == StorageMissing.code else StorageCorrupt
            world.check_error(kind(str(found.message)), began)
        else:
            world.count(f"copy: {found.code}")

    def _give_way(self, node: Node, ledger: NamespaceLedger, first: int) -> None:
        """Only to a copy of a namespace that is over, which is then deleted."""
        world = self.world
        current = history.read_current(world.backup, ledger.name).manifest
        copied = current.copied
        if isinstance(copied, Copied) and not ledger.some_epoch(
            max(first, 1), lambda epoch: epoch.incarnation != copied.incarnation
        ):
            raise PromiseBroken(f"{ledger.name}: a copy that nobody wrote to was refused as another's")
        with suppress(VecstoreError):
            delete_namespace(
                Link(world.backups, node.process),
                ledger.name,
                incarnation=current.incarnation,
                **self._others(node),
            )
            world.count("copies deleted")

    def collect(self, node: Node, ledger: NamespaceLedger) -> None:
        setup = self.world.setup
        with suppress(VecstoreError):
            result = collect(
                Link(self.world.backups, node.process),
                ledger.name,
                retention=setup.retention,
                grace=setup.grace,
                **self._others(node),
            )
            self.world.count("objects of copies collected", result.deleted)


def check_copy(world: World, name: str, manifest: Manifest) -> None:
    """A copy, and each tag of it, holds the rows of the epoch that it says it is of."""
    copied = manifest.copied
    assert isinstance(copied, Copied), "nobody writes there but copies"
    ledger = world.ledgers[name]
    db = EmbeddedDatabase(world.backup, threads=1, rng=Random(0))
    for theirs, ours in ((copied.epoch, None), *copied.tags.values()):
        if ours is not None and all(pin.epoch != ours for pin in manifest.pins):
            continue
        hits = db.search(name, np.zeros(DIM, np.float32), SearchParams(**EXACT, epoch=ours))
        if rows_of(hits) != ledger.epoch(theirs).content:
            raise PromiseBroken(f"copy of {name}: epoch {theirs} has other rows there")
