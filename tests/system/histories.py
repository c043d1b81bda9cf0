"""A process that reads and writes a few ids and notes down when it asked what, and what it was answered.

Imported by the processes, so it imports no test library. `read_history` makes of their journals what
`tests.linearizability` judges.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import vecstore
from tests.journal import Journal, read_journal
from tests.linearizability import Operation
from vecstore.errors import (
    IdExists,
    OutcomeUnknown,
    RowNotFound,
    ServerUnavailable,
    StorageConflict,
    StorageRetryable,
)

NAMESPACE = "registers"
DIM = 4
IDS = range(6)
# Whoever gets one of these was told that nothing was applied.
REFUSALS = (StorageRetryable, StorageConflict, ServerUnavailable)
SHIFT = 24  # a value is the client's number and its own count; float32 counts exactly up to 2**24


@dataclass(frozen=True, slots=True)
class Client:
    """One process.

    Attributes
    ----------
    url
        Of the store, or of a server.
    number
        No two of a run have the same, those that were started in place of a killed one neither.
    folder
        Where journals are, and where a file named ``stop`` ends the run.
    env
        Where the store is and who we are; the process that they are forked from may be older than this.
    """

    url: str
    number: int
    folder: Path
    seed: int
    env: dict[str, str]

    @property
    def journal(self) -> Path:
        return self.folder / f"client-{self.number}.jsonl"


def run(client: Client) -> None:
    """Until the run is over; whatever goes wrong is noted down too."""
    os.environ.update(client.env)
    with Journal(client.journal) as journal:
        try:
            _run(client, journal)
        except Exception:
            journal.write(broken=traceback.format_exc())
            raise


def _run(client: Client, journal: Journal) -> None:
    rng = Random(f"{client.seed}/{client.number}")
    value = client.number << SHIFT
    # Every fifth compacts beside its work, as an embedded writer does.
    maintenance = "thread" if client.number % 5 == 0 else "off"
    with vecstore.connect(client.url, maintenance=maintenance) as db:
        ns = vecstore.Namespace(db.backend, NAMESPACE)
        while not (client.folder / "stop").exists():
            value += len(IDS)
            how = rng.random()
            if how < 0.35:
                _read(journal, ns, rng.choice(IDS))
            elif how < 0.5:
                _read_all(journal, ns)
            else:
                ids = rng.sample(IDS, 1 if how < 0.9 else rng.randint(2, 4))
                kind = rng.choice(("upsert", "upsert", "delete", "insert" if len(ids) == 1 else "upsert"))
                key = f"{client.number}-{value}" if rng.random() < 0.2 else None
                _write(journal, ns, kind, ids, value, key)


def _read(journal: Journal, ns: vecstore.Namespace, identity: int) -> None:
    began = time.monotonic_ns()
    try:
        vector = ns.get(identity).vector
        assert vector is not None
        found = {str(identity): _value(identity, vector)}
    except RowNotFound:
        found = {}
    except REFUSALS:
        return
    journal.write(read=[identity], found=found, began=began, ended=time.monotonic_ns())


def _read_all(journal: Journal, ns: vecstore.Namespace) -> None:
    began = time.monotonic_ns()
    try:
        hits = ns.search([0.0, 0.0, 0.0, 1.0], top_k=2 * len(IDS), include=["vector"])
    except REFUSALS:
        return
    ended = time.monotonic_ns()
    found: dict[str, int] = {}
    assert hits.vectors is not None
    for identity, vector in zip(hits.ids.tolist(), hits.vectors, strict=True):
        assert str(identity) not in found, f"epoch {hits.epoch} has id {identity} twice"
        found[str(identity)] = _value(identity, vector)
    journal.write(read=list(IDS), found=found, began=began, ended=ended)


def _write(
    journal: Journal, ns: vecstore.Namespace, kind: str, ids: list[int], value: int, key: str | None
) -> None:
    values = [value + place for place in range(len(ids))]
    journal.write(write=value, kind=kind, ids=ids, values=values, began=time.monotonic_ns())
    count: int | None = None
    try:
        if kind == "delete":
            count = ns.delete(ids, idempotency_key=key).deleted
        else:
            mode: Any = kind
            vectors = [_vector(i, v) for i, v in zip(ids, values, strict=True)]
            count = ns.insert(vectors, ids=ids, mode=mode, idempotency_key=key).upserted
    except OutcomeUnknown:
        outcome = "unknown"
    except IdExists:
        outcome = "clash"
    except REFUSALS:
        outcome = "refused"
    else:
        outcome = "done"
    journal.write(answer=value, outcome=outcome, count=count, ended=time.monotonic_ns())


def _vector(identity: int, value: int) -> list[float]:
    return [float(identity), float(value >> SHIFT), float(value & (1 << SHIFT) - 1), 1.0]


def _value(identity: int, vector: np.ndarray[Any, Any]) -> int:
    assert vector[0] == identity, f"id {identity} was answered with the vector of {vector[0]}"
    return int(vector[1]) << SHIFT | int(vector[2])


# -- what judges them ---------------------------------------------------------------------------


def read_history(journals: Iterable[Path]) -> dict[int, list[Operation]]:
    """Of each id, from all journals. A write without an answer may take effect at any time."""
    history: dict[int, list[Operation]] = {identity: [] for identity in IDS}
    for path in journals:
        asked: dict[int, dict[str, Any]] = {}
        answered: dict[int, dict[str, Any]] = {}
        for record in read_journal(path):
            if "broken" in record:
                raise AssertionError(f"{path.name}: {record['broken']}")
            if "write" in record:
                asked[record["write"]] = record
            elif "answer" in record:
                answered[record["answer"]] = record
            else:
                for identity in record["read"]:
                    seen = record["found"].get(str(identity))
                    history[identity].append(Operation("read", record["began"], record["ended"], seen))
        for number, record in asked.items():
            for identity, operation in _operations(record, answered.get(number)):
                history[identity].append(operation)
    return history


def _operations(asked: dict[str, Any], answer: dict[str, Any] | None) -> Iterable[tuple[int, Operation]]:
    outcome = "unknown" if answer is None else answer["outcome"]
    if outcome == "refused":
        return
    for identity, value in zip(asked["ids"], asked["values"], strict=True):
        kind, wrote = asked["kind"], None if asked["kind"] == "delete" else value
        if outcome == "unknown":
            yield identity, Operation(kind, asked["began"], value=wrote)
        elif outcome == "clash":
            yield identity, Operation("clash", asked["began"], answer["ended"])
        else:
            # A count speaks of each id only if it counts all of them, or none.
            count, found = answer["count"], None
            if kind != "insert" and count in (0, len(asked["ids"])):
                found = count > 0
            yield identity, Operation(kind, asked["began"], answer["ended"], wrote, found)
