"""Golden stores: what a version of vecstore wrote, and what it answered, which every later one must.

    python -m tests.golden.make

writes the one of the version at hand: right once, when that version is released, or while it is not yet. A
store is a zip of its objects. Clock and chance are seeded, so that two runs differ only in ids and times that
threads race for; the answers are the same.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import json
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.core import CODED, EXACT, clustered, database, generator
from vecstore.api import Database, Namespace
from vecstore.config import package_version
from vecstore.maintenance.copying import copy_store
from vecstore.manifest.lease import Lease
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore

FOLDER = Path(__file__).parent
STORES = FOLDER / "stores"
DIM = 8
BEGAN = 1_790_000_000.0  # by the store's clock
TYPES: dict[str, Any] = {
    "string": lambda i: ["red", "green", "blue, or so", "", "grün"][i % 5],
    "int": lambda i: i - 100,
    "uint": lambda i: i * 10**15,
    "float": lambda i: i / 7,
    "bool": lambda i: i % 3 == 0,
    "datetime": lambda i: (datetime.datetime(2020, 1, 1) + datetime.timedelta(hours=i)).isoformat() + "Z",
    "uuid": lambda i: str(uuid.UUID(int=i * 2**64 + i)),
    "[]string": lambda i: [f"tag{j}" for j in range(i % 4)],
    "[]int": lambda i: [-i, i],
    "[]uint": lambda i: [i] * (i % 3),
    "[]float": lambda i: [i / 3],
    "[]bool": lambda i: [i % 2 == 0, True],
    "[]datetime": lambda i: [f"20{i % 80 + 10}-05-06T07:08:09Z"],
    "[]uuid": lambda i: [str(uuid.UUID(int=i))],
}
FILTERS: list[Any] = [
    ["string", "Eq", "red"],
    ["And", [["int", "Gte", -50], ["bool", "Eq", True]]],
    ["Or", [["[]string", "Contains", "tag2"], ["float", "Lt", 3.0]]],
    ["Not", ["datetime", "Lt", "2020-01-03T00:00:00Z"]],
    ["uuid", "Eq", TYPES["uuid"](7)],
    ["string", "Glob", "*or*"],
]


def column_name(kind: str) -> str:
    return kind.replace("[]", "list_of_")


def _columns(rows: range) -> dict[str, list[Any]]:
    return {column_name(kind): [value(i) if i % 11 else None for i in rows] for kind, value in TYPES.items()}


def _filters() -> Iterator[Any]:
    def renamed(one: Any) -> Any:
        if isinstance(one, list) and len(one) == 3 and one[0] in TYPES:
            return [column_name(one[0]), *one[1:]]
        return [renamed(inner) for inner in one] if isinstance(one, list) else one

    yield from map(renamed, FILTERS)


def build() -> MemoryStore:
    """Namespaces with every kind of object and of value."""
    ticks = itertools.count()
    store = MemoryStore("golden", clock=lambda: BEGAN + next(ticks) / 1000)
    db = database(store, seed=1)
    rows = clustered(generator(1), 600, DIM)
    schema = {column_name(kind): {"type": kind} for kind in TYPES}
    schema["note"] = {"type": "string", "filterable": False}
    full = db.create_namespace("full", DIM, "l2", schema=schema, list_rows=16, **CODED)
    full.insert(rows[:100], range(100), attributes=_columns(range(100)))
    full.delete(range(0, 100, 9))
    full.tag("early")
    full.insert(rows[100:160], range(60, 120), attributes={**_columns(range(60, 120)), "note": ["n"] * 60})
    full.compact(everything=True)
    full.patch([61, 62], {"string": ["patched", None], "note": ["x", "y"]})
    full.delete(filter=["int", "Lt", -95])
    full.insert(rows[160:165], range(200, 205))
    branch = full.branch("branch")
    branch.insert(rows[170:180], range(300, 310))
    branch.delete([61, 300])
    names = db.create_namespace("names", DIM, "cosine", store_vectors="fp16", list_rows=16, **CODED)
    names.insert(rows[180:260], [f"näme {i}" for i in range(80)])
    names.delete(["näme 3"])
    plain = db.create_namespace("assigned", DIM, "dot", store_vectors="none")
    plain.insert(rows[260:290])
    plain.insert(rows[290:295])
    undone = db.create_namespace("restored", DIM, "l2")
    undone.insert(rows[300:310], range(10))
    undone.delete([1, 2])
    at = undone.stats()
    undone.restore(at.epoch - 1, if_match=(at.incarnation, at.epoch))
    undone.update(target_recall=0.9, probe_fraction=0.5)
    db.create_namespace("empty", DIM)
    db.create_namespace("gone", DIM).insert(rows[:2])
    db.delete_namespace("gone")
    elsewhere = MemoryStore("elsewhere", clock=store.now)
    other = database(elsewhere, seed=2)
    moved = other.create_namespace("moved", DIM, "l2")
    moved.insert(rows[310:320], range(10), attributes={"year": list(range(2000, 2010))})
    moved.tag("then")
    moved.delete([4])
    assert copy_store(elsewhere, store, rng=Random(3)).failed == ()
    assert Lease(store, "full", "compaction", holder="golden", ttl=60.0, rng=Random(1)).acquire()
    return store


def answers(db: Database) -> dict[str, Any]:
    """What a store answers, as JSON."""
    queries = clustered(generator(2), 3, DIM)
    told: dict[str, Any] = {}
    for info in db.namespaces():
        ns = db.namespace(info.name)
        told[info.name] = {
            "dim": info.dim,
            "metric": info.metric,
            "id_kind": info.id_kind,
            "rows": info.rows,
            "defaults": info.defaults,
            "schema": info.schema,
            "now": _at(ns, queries, None),
            "tags": {tag.name: _at(ns, queries, tag.epoch) for tag in ns.tags()},
        }
    return told


def _at(ns: Namespace, queries: Any, epoch: int | None) -> dict[str, Any]:
    info = ns.stats()
    exact = info.defaults["store_vectors"] != "none"
    effort = EXACT if exact else {"probe_fraction": 1.0}
    include = [*info.schema, *(["vector"] if exact else [])]
    found: dict[str, Any] = {
        "nearest": [_hits(ns.search(q, top_k=10, epoch=epoch, **effort)) for q in queries],
        "rows": {str(row.id): _digest(row) for row in ns.scan(include=include, epoch=epoch)},
    }
    if "string" in info.schema:
        found["filtered"] = [
            _hits(ns.search(queries[0], top_k=10, filter=one, epoch=epoch, **effort)) for one in _filters()
        ]
        totals = ns.aggregate(
            {
                "n": ["Count"],
                "least": ["Min", "int"],
                "mean": ["Avg", "float"],
                "ids": ["CountDistinct", "uuid"],
            },
            group_by=["string"],
            epoch=epoch,
        )
        found["totals"] = totals.groups
        ordered = ns.search(order_by=["datetime", "desc"], top_k=5, epoch=epoch)
        found["latest"] = [hit.id for hit in ordered]
    return found


def _digest(row: Any) -> str:
    """Of all that a row holds: written out, they would be most of the file."""
    vector = b"" if row.vector is None else np.asarray(row.vector, dtype="<f4").tobytes()
    told = json.dumps(row.attributes or {}, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(vector + told.encode()).hexdigest()[:12]


def _hits(hits: Any) -> list[Any]:
    return [[hit.id, float(hit.distance)] for hit in hits]


def load(version: str, store: ObjectStore) -> dict[str, Any]:
    """Put the objects of a golden store into an empty one; what it answered."""
    with zipfile.ZipFile(STORES / f"{version}.zip") as archive:
        for name in archive.namelist():
            store.put_if_absent(name, archive.read(name))
    told: dict[str, Any] = json.loads((STORES / f"{version}.json").read_text())
    return told


def versions() -> list[str]:
    return sorted(path.stem for path in STORES.glob("*.zip"))


def main() -> None:
    store = build()
    version = package_version()
    with zipfile.ZipFile(STORES / f"{version}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for meta in store.list("").objects:
            archive.writestr(zipfile.ZipInfo(meta.key), store.get(meta.key).data, zipfile.ZIP_DEFLATED, 9)
    told = json.dumps(answers(database(store)), ensure_ascii=False, separators=(",", ":"), default=str)
    (STORES / f"{version}.json").write_text(told + "\n")


if __name__ == "__main__":
    main()
