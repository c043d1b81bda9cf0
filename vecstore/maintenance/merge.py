"""Merges parts: reads what is alive of them and builds one part of it, within a bound of memory.

Sources are read in order and past the caches. What is large lies in temporary files (`vecstore.room`):
the vectors as they were read, the same put in order (`vecstore.part.arrange`), what the build needs, and
then one column of attributes after another (`vecstore.maintenance.columns`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import structs
from pyroaring import BitMap

from vecstore.index.view import OpenPart, View
from vecstore.maintenance.columns import gather_columns
from vecstore.part.arrange import arrange
from vecstore.part.builder import PartImage, PartSpec, available_cores, build_part, rows_a_chunk
from vecstore.part.reader import PartReader
from vecstore.progress import Progress, within
from vecstore.room import Room
from vecstore.rows.ids import Ids, keys_of
from vecstore.rows.vectors import are_usable
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32

I64 = npt.NDArray[np.int64]

GATHERED: Final = 0.1  # of a merge, once its rows are read
ARRANGED: Final = 0.2  # and put in order
BUILT: Final = 0.7  # and all is done but for their attributes, where there are any
ARRAYS: Final = 16  # times as much memory as the largest array that is not put into a file
APPROXIMATE_ROWS: Final = 2_048  # at a time, whatever the bound: they are multiplied with a matrix
THREAD_BYTES: Final = 64 << 20  # of the bound, for each thread that computes
SPARE_CORES: Final = 1  # left to searches, where there are more (decision 0017)


@dataclass(frozen=True, slots=True)
class Source:
    """A part to merge.

    Attributes
    ----------
    dead
        Rows that are left out.
    """

    part: OpenPart
    dead: BitMap


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of the sources.

    Attributes
    ----------
    image
        None if no row was alive.
    moved
        For each source i64[n]: where its rows went, -1 for those left out.
    """

    image: PartImage | None
    moved: Sequence[I64]


def merge(
    view: View,
    sources: Sequence[Source],
    spec: Callable[[F32], PartSpec],
    *,
    memory: int,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Build one part of the live rows of some parts.

    Parameters
    ----------
    spec
        How the part is encoded, given its vectors f32[N, dim].
    memory
        Bytes that may be held at a time, but for what `vecstore.maintenance.policy` counts by rows. The
        part does not depend on it.
    folder
        Of temporary files, as `Room` takes it.
    """
    room = Room(memory // ARRAYS, folder)
    kept = [_alive(source) for source in sources]
    if not any(map(len, kept)):
        return Merged(None, [np.full(source.part.reader.entry.n, -1, dtype=np.int64) for source in sources])
    vectors, ids = _gather(view, sources, kept, room, within(progress, 0.0, GATHERED))
    how = spec(vectors)
    if any(source.part.reader.vector_dtype is None for source in sources):
        # Written before the settings said otherwise: what was not kept is not made up.
        how = replace(how, settings=structs.replace(how.settings, store_vectors="none"))
    workers = max(1, min(available_cores() - SPARE_CORES, memory // THREAD_BYTES))
    arranged = arrange(
        vectors, how, room=room, workers=workers, progress=within(progress, GATHERED, ARRANGED)
    )
    readers = [source.part.reader.aside() for source in sources]
    del vectors  # and the file that it lies in
    image = build_part(
        arranged.vectors,
        ids.take(arranged.order),
        how,
        attributes=gather_columns(
            view.manifest, readers, kept, arranged.order, room, within(progress, BUILT, 1.0)
        ),
        cells=arranged.cells,
        room=room,
        workers=workers,
        progress=within(progress, ARRANGED, BUILT if view.manifest.attributes else 1.0),
    )
    order = arranged.order if image.partition is None else arranged.order[image.partition.order]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    moved, at = [], 0
    for source, rows in zip(sources, kept, strict=True):
        there = np.full(source.part.reader.entry.n, -1, dtype=np.int64)
        there[rows] = place[at : at + len(rows)]
        at += len(rows)
        moved.append(there)
    return Merged(image, moved)


def _gather(
    view: View, sources: Sequence[Source], kept: Sequence[I64], room: Room, progress: Progress
) -> tuple[F32, Ids]:
    """The rows that are kept of all sources, and their ids."""
    trace = ReadTrace()
    vectors = room.empty((sum(map(len, kept)), view.manifest.dim), np.float32)
    ids: list[npt.NDArray[Any]] = []
    at = 0
    for source, rows in zip(sources, kept, strict=True):
        reader = source.part.reader.aside()
        ids.append(_ids_of(reader, trace)[rows])
        for block, wanted in _blocks(view, source.part, reader, rows, room, trace):
            taken = vectors[at : at + len(wanted)]
            np.take(block, wanted, axis=0, out=taken, mode="clip")
            if not are_usable(taken, view.manifest.metric):
                section = "records" if reader.vector_dtype is None else "vectors"
                raise reader.corrupt(section, "holds a vector that no insert takes")
            at += len(wanted)
            progress(at / len(vectors))
    values = np.concatenate(ids)
    if view.manifest.id_kind == "string":
        return vectors, Ids("string", values, keys_of(values))
    return vectors, Ids("u64", values, values)


def _alive(source: Source) -> I64:
    alive = np.ones(source.part.reader.entry.n, dtype=np.bool_)
    alive[np.fromiter(source.dead, dtype=np.int64, count=len(source.dead))] = False
    return np.flatnonzero(alive)


def _ids_of(reader: PartReader, trace: ReadTrace) -> npt.NDArray[Any]:
    """Of all rows, in order: for integers from their index, which is a small part of the records."""
    if reader.id_kind == "string":
        return np.concatenate(list(reader.scan_ids(trace)))
    keys, rows = reader.index.between(0, None, trace)
    ids = np.empty(reader.entry.n, dtype=np.uint64)
    ids[rows] = keys
    return ids


def _blocks(
    view: View, part: OpenPart, reader: PartReader, rows: I64, room: Room, trace: ReadTrace
) -> Iterator[tuple[F32, I64]]:
    """Vectors some at a time, f32[m, dim], with the places of those among them that are wanted.

    Parameters
    ----------
    rows
        Those wanted, ascending.
    """
    if reader.vector_dtype is None:
        for start in range(0, len(rows), APPROXIMATE_ROWS):
            some = rows[start : start + APPROXIMATE_ROWS]
            vectors = reader.approximate_vectors(some, view.rotation, view.means[part.group], trace)
            yield vectors, np.arange(len(some))
        return
    first = 0
    for block in reader.scan_vectors(rows_a_chunk(reader.dim, room), trace):
        start, stop = np.searchsorted(rows, (first, first + len(block)))
        yield block, rows[start:stop] - first
        first += len(block)
