"""The processes: each does its work until it is killed, or until a file named ``stop`` ends the run.

Imported by the processes, so it imports no test library. What they learn they note down; `ledger.judge`
says what it means.
"""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np

import vecstore
from tests.chaos.ledger import ROWS
from tests.journal import Journal
from vecstore.errors import (
    OutcomeUnknown,
    RowNotFound,
    SnapshotExpired,
    StorageConflict,
    StorageRetryable,
    TooManyRequests,
)
from vecstore.maintenance import compactor
from vecstore.storage.base import ObjectMeta
from vecstore.storage.s3.store import S3Store

NAMESPACE = "chaos"
DIM = 4
LANES = 2  # threads of a writer: what they ask for at once is committed in one group
BATCHES = 8  # of each lane
RETENTION, GRACE = 20.0, 15.0
PACE = 0.5  # seconds between two reads of a reader at most: writers are to get a turn
KEYED = 0.1  # share of puts: a namespace remembers a thousand keys
# Whoever gets one of these was told that nothing was applied.
REFUSALS = (StorageRetryable, StorageConflict, TooManyRequests)


@dataclass(frozen=True, slots=True)
class Actor:
    """One process.

    Attributes
    ----------
    number
        Among those of its role.
    life
        How many there were before it in its place.
    lanes
        In the run, all writers together; each lane has its own batches.
    resume
        Of each lane of a writer: the last serial that was used, and the step that was under way.
    """

    role: Literal["writer", "reader", "compactor", "collector"]
    number: int
    life: int
    url: str
    env: dict[str, str]
    folder: Path
    seed: int
    lanes: int
    resume: tuple[tuple[int, dict[str, Any] | None], ...] = ()

    def journal(self, lane: int = 0) -> Path:
        return self.folder / f"{self.role}-{self.number}-{lane}-{self.life:04}.jsonl"

    def stopped(self) -> bool:
        return (self.folder / "stop").exists()


def act(actor: Actor) -> None:
    os.environ.update(actor.env)
    roles: dict[str, Callable[[Actor, vecstore.Namespace], None]] = {
        "writer": _write,
        "reader": _read,
        "compactor": _compact,
        "collector": _collect,
    }
    switches = actor.folder / f"switches-{actor.role}-{actor.number}-{actor.life:04}.jsonl"
    with Journal(switches) as journal, vecstore.connect(actor.url, maintenance="off") as db:
        _note_switches(journal)
        roles[actor.role](actor, vecstore.Namespace(db.backend, NAMESPACE))


def _note_switches(journal: Journal) -> None:
    """Note down what the store answers to each compare-and-set: it is what all promises rest on."""
    put_if_match = S3Store.put_if_match

    def noted(self: S3Store, key: str, data: bytes, etag: str) -> ObjectMeta:
        began = time.monotonic_ns()
        try:
            meta = put_if_match(self, key, data, etag)
        except Exception as error:
            journal.write(
                key=key, old=etag, failed=type(error).__name__, began=began, ended=time.monotonic_ns()
            )
            raise
        journal.write(key=key, old=etag, new=meta.etag, began=began, ended=time.monotonic_ns())
        return meta

    S3Store.put_if_match = noted  # type: ignore[method-assign]


def _noting(journal: Journal, work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        journal.write(broken=traceback.format_exc())
        raise


# -- writers ------------------------------------------------------------------------------------


def _write(actor: Actor, ns: vecstore.Namespace) -> None:
    lanes = [_Lane(actor, ns, lane) for lane in range(LANES)]
    threads = [threading.Thread(target=lane.run) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Lane:
    """Puts and deletes its own batches, one step after another."""

    def __init__(self, actor: Actor, ns: vecstore.Namespace, lane: int) -> None:
        self._actor = actor
        self._ns = ns
        self._rng = Random(f"{actor.seed}/{actor.number}/{lane}/{actor.life}")
        self._lane = actor.number * LANES + lane
        self._serial, self._under_way = actor.resume[lane]
        self._journal = Journal(actor.journal(lane))

    def run(self) -> None:
        with self._journal:
            _noting(self._journal, self._run)

    def _run(self) -> None:
        if self._under_way is not None and self._under_way["key"] is not None:
            self._step(self._under_way)  # whoever was killed cannot ask again; we do, under its key
        while not self._actor.stopped():
            # Serials of all lanes are different, and are counted exactly by float32 for 2**24.
            self._serial += self._actor.lanes
            kind = "put" if self._rng.random() < 0.65 else "delete"
            keyed = kind == "put" and self._rng.random() < KEYED
            self._step(
                {
                    "step": self._serial,
                    "batch": self._lane * BATCHES + self._rng.randrange(BATCHES),
                    "kind": kind,
                    "key": f"{self._serial}" if keyed else None,
                }
            )

    def _step(self, step: dict[str, Any]) -> None:
        """Under a key it is asked for again until it is known what became of it."""
        while not self._attempt(step) and step["key"] is not None and not self._actor.stopped():
            time.sleep(self._rng.random())

    def _attempt(self, step: dict[str, Any]) -> bool:
        """Whether an answer says what became of it."""
        serial, ids = step["step"], range(step["batch"] * ROWS, (step["batch"] + 1) * ROWS)
        epoch, found, code = 0, 0, ""
        self._journal.write(**step, at=time.monotonic_ns())
        try:
            if step["kind"] == "put":
                vectors = [[float(i), float(serial), 1.0, 0.0] for i in ids]
                put = self._ns.insert(vectors, ids=list(ids), idempotency_key=step["key"])
                epoch, found = put.epoch, put.upserted
            else:
                gone = self._ns.delete(list(ids))
                epoch, found = gone.epoch, gone.deleted
        except OutcomeUnknown as error:
            outcome, code = "unknown", error.code
        except REFUSALS as error:
            outcome, code = "refused", error.code
        else:
            outcome = "done"
        self._journal.write(
            answer=serial, outcome=outcome, code=code, epoch=epoch, found=found, at=time.monotonic_ns()
        )
        return outcome == "done"


# -- readers ------------------------------------------------------------------------------------


def _read(actor: Actor, ns: vecstore.Namespace) -> None:
    rng = Random(f"{actor.seed}/{actor.number}/{actor.life}")
    recent: list[tuple[float, int]] = []  # epochs that were read, and when
    with Journal(actor.journal()) as journal:

        def work() -> None:
            while not actor.stopped():
                time.sleep(PACE * rng.random())
                how = rng.random()
                recent[:] = [(at, epoch) for at, epoch in recent if time.monotonic() - at < RETENTION / 2]
                if how < 0.5:
                    epoch = read_all(journal, ns, actor.lanes)
                    recent.extend([(time.monotonic(), epoch)] if epoch else [])
                elif how < 0.7:
                    read_row(journal, ns, rng.randrange(actor.lanes * BATCHES * ROWS))
                elif how < 0.85:
                    read_all(
                        journal, ns, actor.lanes, kind="eventual", consistency="eventual", max_staleness=2.0
                    )
                elif recent:
                    read_past(journal, ns, actor.lanes, *rng.choice(recent))

        _noting(journal, work)


def read_all(
    journal: Journal, ns: vecstore.Namespace, lanes: int, kind: str = "all", **how: Any
) -> int | None:
    """Note down every live row of one epoch, by batch; the epoch, unless storage failed."""
    batches = lanes * BATCHES
    began = time.monotonic_ns()
    try:
        hits = ns.search([0.0, 0.0, 1.0, 0.0], top_k=batches * ROWS + 1, include=["vector"], **how)
    except REFUSALS as error:
        journal.write(failed=kind, code=error.code)
        return None
    ended = time.monotonic_ns()
    assert hits.vectors is not None
    ids = hits.ids.astype(np.int64)
    odd = [f"id {i} is there twice" for i, n in Counter(ids.tolist()).items() if n > 1]
    odd += [f"id {i} has the vector of {v}" for i, v in zip(ids, hits.vectors[:, 0], strict=True) if i != v]
    rows = Counter(zip((ids // ROWS).tolist(), hits.vectors[:, 1].astype(np.int64).tolist(), strict=True))
    seen = [(batch, version, n) for (batch, version), n in rows.items()]
    journal.write(
        read=kind, epoch=hits.epoch, batches=batches, seen=seen, odd=odd[:3], began=began, ended=ended
    )
    return hits.epoch


def read_past(journal: Journal, ns: vecstore.Namespace, lanes: int, seen_at: float, epoch: int) -> None:
    """Note down an epoch once more; it may have expired only if it was current before the retention."""
    try:
        read_all(journal, ns, lanes, kind="past", epoch=epoch)
    except SnapshotExpired as error:
        if time.monotonic() - seen_at < RETENTION:
            raise
        journal.write(failed="past", code=error.code)


def read_row(journal: Journal, ns: vecstore.Namespace, identity: int) -> None:
    """Note down one row, if it is there."""
    began = time.monotonic_ns()
    try:
        row = ns.get(identity)
    except RowNotFound:
        return  # no epoch is told with it; whole answers show what is absent
    except REFUSALS as error:
        journal.write(failed="row", code=error.code)
        return
    assert row.vector is not None
    odd = [] if row.vector[0] == identity else [f"id {identity} has the vector of {row.vector[0]}"]
    journal.write(
        read="row",
        epoch=row.epoch,
        batch=identity // ROWS,
        version=int(row.vector[1]),
        odd=odd,
        began=began,
        ended=time.monotonic_ns(),
    )


# -- maintenance --------------------------------------------------------------------------------


def _compact(actor: Actor, ns: vecstore.Namespace) -> None:
    # Whoever is killed leaves its lease behind, for five minutes: as long as a run.
    compactor.LEASE_SECONDS = 1.0  # type: ignore[misc]
    rng = Random(f"{actor.seed}/compactor/{actor.life}")
    _maintain(actor, lambda: {"merged": len(ns.compact(everything=rng.random() < 0.1).merged)}, pause=0.2)


def _collect(actor: Actor, ns: vecstore.Namespace) -> None:
    _maintain(actor, lambda: {"collected": ns.gc(retention=RETENTION, grace=GRACE).deleted}, pause=1.0)


def _maintain(actor: Actor, work: Callable[[], dict[str, int]], *, pause: float) -> None:
    with Journal(actor.journal()) as journal:

        def repeat() -> None:
            while not actor.stopped():
                try:
                    journal.write(**work())
                except (OutcomeUnknown, *REFUSALS) as error:
                    journal.write(failed=actor.role, code=error.code)
                time.sleep(pause)

        _noting(journal, repeat)
