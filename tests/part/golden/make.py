"""Writes and loads the golden parts: bytes that every later version must read.

    python -m tests.part.golden.make

rewrites them, which is right only while the format is 0 and has not been released.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tests.core import EXACT, clustered, database, generator
from tests.part.helpers import build, spec
from vecstore.api import Namespace
from vecstore.manifest.keys import current_key, part_key
from vecstore.manifest.model import CommitRef, Manifest, Part, encode_manifest
from vecstore.rows.ids import parse_ids
from vecstore.storage.base import ObjectStore
from vecstore.storage.memory import MemoryStore

FOLDER = Path(__file__).parent
DIM, N, SEED = 20, 150, 11


@dataclass(frozen=True)
class Golden:
    data: bytes
    sha256: str
    entry: Part
    metric: Any
    ids: list[Any]
    vectors: npt.NDArray[np.float32]
    queries: npt.NDArray[np.float32]
    answers: list[dict[str, Any]]


def load(name: str) -> Golden:
    told = json.loads((FOLDER / f"{name}.json").read_text())
    return Golden(
        (FOLDER / f"{name}.part").read_bytes(),
        told["sha256"],
        msgspec.convert(told["entry"], Part),
        told["metric"],
        told["ids"],
        _floats(told["vectors"]),
        _floats(told["queries"]),
        told["answers"],
    )


def place(golden: Golden, store: ObjectStore) -> Namespace:
    """A namespace of that one part."""
    owner = golden.entry.owner
    manifest = Manifest(
        namespace=owner,
        incarnation="i1",
        lineage="l1",
        epoch=1,
        created_at=0.0,
        committed_at=0.0,
        dim=DIM,
        metric=golden.metric,
        id_kind="string" if isinstance(golden.ids[0], str) else "u64",
        rotation_seed=SEED,
        parts=(golden.entry,),
        commits=(CommitRef("c1", 1),),
    )
    store.put_if_absent(part_key(owner, golden.entry.id), golden.data)
    store.put_if_absent(current_key(owner), encode_manifest(manifest))
    return database(store).namespace(owner)


def make(name: str, metric: Any, ids: list[Any]) -> None:
    rng = generator(SEED)
    vectors, queries = clustered(rng, N, DIM), clustered(rng, 4, DIM)
    stored = build(vectors, parse_ids(ids), spec(DIM, metric, seed=SEED, list_rows=16))
    told = {
        "sha256": hashlib.sha256(stored.data).hexdigest(),
        "entry": msgspec.to_builtins(stored.entry),
        "metric": metric,
        "ids": ids,
        "vectors": base64.b64encode(vectors.tobytes()).decode(),
        "queries": base64.b64encode(queries.tobytes()).decode(),
        "answers": [],
    }
    (FOLDER / f"{name}.part").write_bytes(stored.data)
    (FOLDER / f"{name}.json").write_text(json.dumps(told))
    ns = place(load(name), MemoryStore())
    for q in queries:
        exact, by_int8 = ns.search(q, top_k=5, **EXACT), ns.search(q, top_k=5, probe_fraction=1.0)
        told["answers"].append(
            {
                "ids": [hit.id for hit in exact],
                "distances": exact.distances.tolist(),
                "int8": by_int8.distances.tolist(),
            }
        )
    (FOLDER / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n")


def _floats(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").reshape(-1, DIM)


if __name__ == "__main__":
    make("u64", "l2", [i * 7 + 1 for i in range(N)])
    make("string", "cosine", [f"glöss-{i}" for i in range(N)])
