"""A part on a store, opened as readers open it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.core import CODED, RangeStore
from vecstore.index.recall import Calibration
from vecstore.index.rotation import Rotation
from vecstore.manifest.keys import part_key
from vecstore.manifest.model import Part, Settings
from vecstore.part.builder import PartSpec, build_part
from vecstore.part.reader import PartReader
from vecstore.rows.ids import Ids
from vecstore.storage.base import ObjectStore
from vecstore.storage.cache import PageCache, ReadTrace
from vecstore.storage.memory import MemoryStore
from vecstore.types import Metric

N = 700  # enough for a calibration and for several lists
STORES = [MemoryStore, RangeStore]


@dataclass(frozen=True)
class Stored:
    """The line of the manifest, and what was built."""

    entry: Part
    spec: PartSpec
    data: bytes
    order: npt.NDArray[np.int64]  # row of the part -> input row

    @property
    def key(self) -> str:
        return part_key(self.entry.owner, self.entry.id)


def spec(dim: int, metric: Metric = "l2", *, seed: int = 7, mean: Any = None, **settings: Any) -> PartSpec:
    chosen = Settings(**{**CODED, **settings})
    return PartSpec(dim, metric, Rotation(dim, seed), chosen, mean=mean, seed=seed)


def build(vectors: npt.NDArray[np.float32], ids: Ids | None, how: PartSpec, *, part_id: str = "p1") -> Stored:
    image = build_part(vectors, ids, how)
    data = b"".join(bytes(chunk) for chunk in image.chunks())
    entry = image.entry(part_id=part_id, owner="docs", began=0.0, mean=None)
    order = np.arange(len(vectors)) if image.partition is None else image.partition.order
    return Stored(entry, how, data, order)


def put(store: ObjectStore, stored: Stored, data: bytes | None = None) -> None:
    store.delete(stored.key)
    store.put_if_absent(stored.key, stored.data if data is None else data)


def open_part(
    store: ObjectStore, stored: Stored, *, entry: Part | None = None, cache: PageCache | None = None
) -> PartReader:
    entry = stored.entry if entry is None else entry
    strings = isinstance(entry.id_min, str)
    return PartReader(
        store,
        PageCache(64 << 20) if cache is None else cache,
        entry,
        dim=stored.spec.dim,
        padded_dim=stored.spec.rotation.padded_dim,
        id_kind="string" if strings else "u64",
        trace=ReadTrace(),
    )


def calibration_of(stored: Stored) -> Calibration | None:
    store = MemoryStore()
    put(store, stored)
    return open_part(store, stored).calibration


def read_everything(reader: PartReader) -> None:
    """Touch every byte that a search, a lookup or a compaction may read."""
    trace = ReadTrace()
    for name in reader.section_names():
        reader.verify_section(name, trace)


def opened(kind: type[MemoryStore], stored: Stored) -> PartReader:
    store = kind()
    put(store, stored)
    return open_part(store, stored)
