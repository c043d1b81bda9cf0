"""Small sound stores of every kind, which inputs then change."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from tests.core import clustered, database, generator
from vecstore.manifest.keys import current_key
from vecstore.storage.memory import MemoryStore

NS = "docs"
ATTRIBUTES = {
    "n": "int",
    "u": "uint",
    "year": "int",
    "score": "float",
    "flag": "bool",
    "word": "string",
    "text": "string",
    "body": {"type": "string", "filterable": False},
    "at": "datetime",
    "who": "uuid",
    "tags": "[]string",
    "sizes": "[]int",
}


@dataclass(frozen=True)
class World:
    """A namespace `NS` in a store."""

    name: str
    dim: int
    objects: dict[str, bytes]
    ids: list[Any]
    queries: npt.NDArray[np.float32]
    attributes: bool

    @property
    def manifest(self) -> bytes:
        return self.objects[current_key(NS)]


CODED: dict[str, Any] = {"small_part_threshold": 0, "list_rows": 16}
KINDS: dict[str, dict[str, Any]] = {
    "coded": {"dim": 12, "metric": "l2", "attributes": True, "settings": CODED},
    "strings": {"dim": 7, "metric": "cosine", "attributes": True, "strings": True,
                "settings": {**CODED, "store_vectors": "fp16"}},
    "codes alone": {"dim": 3, "metric": "dot", "attributes": True,
                    "settings": {"small_part_threshold": 0, "store_vectors": "none"}},
    "calibrated": {"dim": 6, "metric": "l2", "rows": 660, "settings": CODED},
    "small": {"dim": 64, "metric": "l2", "attributes": True, "settings": {"expire_by": "at"}},
    "small int8": {"dim": 5, "metric": "cosine", "strings": True, "settings": {"store_vectors": "none"}},
    "one": {"dim": 1, "metric": "dot", "rows": 1, "attributes": True, "settings": {}},
}  # fmt: skip


@cache
def world(name: str) -> World:
    """Two parts with dead rows, copies of patched rows, and a few epochs."""
    kind = KINDS[name]
    dim, n = kind["dim"], kind.get("rows", 100)
    rng = generator(len(name))
    store = MemoryStore("fuzz", clock=lambda: 1_700_000_000.0)
    db = database(store, seed=7)
    schema = ATTRIBUTES if kind.get("attributes") else None
    # A setting may name an attribute that the schema has to have first.
    settings = dict(kind["settings"])
    later = {key: settings.pop(key) for key in ("expire_by",) if key in settings}
    ns = db.create_namespace(NS, dim=dim, metric=kind["metric"], schema=schema, **settings)
    if later:
        ns.update(**later)
    rows = clustered(rng, 2 * n, dim, clusters=5)
    ids: list[Any] = [f"row {i}" for i in range(2 * n)] if kind.get("strings") else list(range(2 * n))
    for first in (0, n):
        mine = slice(first, first + n)
        values = attributes(n, first) if schema else None
        ns.insert(rows[mine], ids[mine], attributes=values)
    if n > 1:
        ns.delete(ids[3 : 2 * n : 7])
        ns.delete(ids[20:40])
    if schema:
        ns.patch(ids[1 : 2 * n : 40], {"word": ["patched"] * len(ids[1 : 2 * n : 40])})
    ns.tag("kept")
    page = store.list("")
    objects = {meta.key: bytes(store.get(meta.key).data) for meta in page.objects}
    db.close()
    return World(name, dim, objects, ids, clustered(rng, 40, dim, clusters=5), schema is not None)


def attributes(n: int, first: int) -> dict[str, Any]:
    """Values of every type and form: few that repeat, many that do not, nulls, empty lists."""
    numbers = range(first, first + n)
    start = datetime(2300, 1, 1, tzinfo=UTC)
    return {
        "n": [i * 37 % 1009 for i in numbers],
        "u": [2**64 - 1 - i if i % 3 else None for i in numbers],
        "year": [2000 + i % 5 for i in numbers],
        "score": [None if i % 11 == 0 else (i - 50) / 7 for i in numbers],
        "flag": [bool(i % 2) if i % 5 else None for i in numbers],
        "word": [f"word {i % 6}" if i % 4 else None for i in numbers],
        "text": [f"text of row {i} and {'more ' * (i % 9)}" for i in numbers],
        "body": [f"body {i}" * (i % 3) for i in numbers],
        "at": [(start + timedelta(hours=i)).isoformat() if i % 6 else None for i in numbers],
        "who": [str(UUID(int=i * 2**90 + i)) for i in numbers],
        "tags": [[f"t{j}" for j in range(i % 4)] if i % 5 else None for i in numbers],
        "sizes": [[i % 7, i % 3] if i % 3 else [] for i in numbers],
    }
