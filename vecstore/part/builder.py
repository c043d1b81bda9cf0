"""Turns a batch of rows into the bytes of a part. Layout: ``docs/formats/part.md``.

What is held beside the batch: its rotated copy (4 * N * Dp bytes), the records (about a third of that)
and what training needs, in memory or in temporary files; the part itself is streamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from vecstore.ext.ivf import record_layout
from vecstore.ext.rabitq import encode_rabitq
from vecstore.ext.records import encode_lists, unit_rows
from vecstore.ext.train import list_spread
from vecstore.index.calibration import calibrate, held_out_rows
from vecstore.index.ivf import Partition, capacity_for, lists_for, single_list
from vecstore.index.recall import Calibration
from vecstore.index.rotation import Rotation
from vecstore.index.training import in_parts, train
from vecstore.limits import MAX_PART_ROWS
from vecstore.manifest.model import Form, Part, Section, Settings
from vecstore.part.format import LIST_DTYPE, PAGE, Buffer, ContainerWriter, aligned
from vecstore.progress import Progress, within
from vecstore.room import IN_MEMORY, Room
from vecstore.rows.column import Column
from vecstore.rows.directory import ColumnEntry, encode_directory
from vecstore.rows.encoding import encode_columns
from vecstore.rows.ids import Ids, build_filter
from vecstore.storage.threads import Workers
from vecstore.types import F32, Metric, StoreVectors

CHUNK_ROWS: Final = 16_384
CHUNK_BYTES: Final = 8 << 20  # of rows that one thread gathers
SHARES: Final = (0.05, 0.5, 0.6)  # of a build's time that have gone by after rotating, training, encoding
SPREAD_WEIGHT: Final = np.float32(0.25)  # of a list's mean squared residual in its rank (decision 0005)
MAX_HALF: Final = 65_504.0  # of float16
MIN_HALF: Final = 2.0**-13  # a row whose greatest number is less loses digits to float16's steps of 2^-24


@dataclass(frozen=True, slots=True)
class PartSpec:
    """How a namespace encodes its parts.

    Attributes
    ----------
    mean
        f32[dim] the part is centred on, in the space of `prepare`; None for the origin.
    seed
        Of training; same rows, spec and seed give the same bytes.
    """

    dim: int
    metric: Metric
    rotation: Rotation
    settings: Settings
    mean: F32 | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PartImage:
    """A part in memory, ready to be streamed as often as an upload needs it.

    Attributes
    ----------
    stored
        How it keeps its vectors: as the settings ask, but see `stored_precision`.
    columns
        The attributes of the rows, laid out, and their directory.
    form
        As of `Part`.
    """

    spec: PartSpec
    stored: StoreVectors
    vectors: F32
    ids: Ids | None
    partition: Partition | None
    records: npt.NDArray[np.uint8]
    lists: npt.NDArray[Any]
    centroid_codes: npt.NDArray[np.uint8] | None
    calibration: Calibration | None
    columns: tuple[Buffer, dict[str, ColumnEntry]] = (b"", {})
    form: Form | UnsetType = UNSET
    _writers: list[ContainerWriter] = field(default_factory=list, repr=False)

    @property
    def n(self) -> int:
        return len(self.vectors)

    @property
    def k(self) -> int:
        return len(self.lists)

    def chunks(self, progress: Progress | None = None) -> Iterator[Buffer]:
        """The bytes of the object, in order. `entry` describes what the last run produced."""
        report = within(progress, 0.0, 1.0)
        writer = ContainerWriter()
        yield from writer.begin()
        for page in writer.section("records", self._record_pages()):
            report(writer.size / self._most)
            yield page
        if self.stored != "none":
            for page in writer.section("vectors", self._vector_pages()):
                report(writer.size / self._most)
                yield page
        keys, rows = self._index()
        yield from writer.section("id_keys", data=keys.tobytes())
        yield from writer.section("id_rows", data=rows.tobytes())
        yield from writer.section("id_filter", data=build_filter(keys).tobytes())
        data, directory = self.columns
        if directory:
            yield from writer.section("attributes", data=data)
        partition = self.partition
        if partition is not None and self.centroid_codes is not None:
            yield from writer.section("cells", data=partition.cells.tobytes())
            yield from writer.section("cell_lists", data=partition.cell_lists.tobytes())
            yield from writer.section("centroid_codes", data=self.centroid_codes.tobytes())
        yield from writer.section("lists", data=self.lists.tobytes())
        yield from writer.section("id_fence", data=keys[:: PAGE // 8].tobytes())
        if directory:
            yield from writer.section("columns", data=_framed(encode_directory(directory)))
        if self.calibration is not None:
            encoded = _framed(msgspec.json.encode(self.calibration))
            yield from writer.section("calibration", data=encoded, required=False)
        yield from writer.finish(
            {
                "n": self.n,
                "k": self.k,
                "dim": self.spec.dim,
                "metric": self.spec.metric,
                "rotation_seed": self.spec.rotation.seed,
                "vectors": self.stored,
                "ids": self.ids.kind if self.ids is not None else "assigned",
            }
        )
        report(1.0)
        self._writers[:] = [writer]

    def entry(self, *, part_id: str, owner: str, began: float, mean: str | None) -> Part:
        """The part's line of the manifest; only after `chunks` ran to its end."""
        (writer,) = self._writers
        id_min, id_max = self.ids.bounds if self.ids is not None else (0, self.n - 1)
        return Part(
            id=part_id,
            owner=owner,
            n=self.n,
            k=self.k,
            bytes=writer.size,
            began=began,
            id_base=None,
            id_min=id_min,
            id_max=id_max,
            mean=mean,
            vectors=self.stored,
            sections={name: Section(e.offset, e.length) for name, e in writer.sections.items()},
            checksums_crc32c=writer.checksums_crc32c,
            form=self.form,
        )

    @property
    def _most(self) -> int:
        """Bytes of records and vectors."""
        return PAGE + self.records.nbytes + (0 if self.stored == "none" else self.vectors.nbytes)

    def _record_pages(self) -> Iterator[memoryview]:
        view = memoryview(self.records.data)
        for offset, length in zip(self.lists["offset"].tolist(), self.lists["length"].tolist(), strict=True):
            yield view[offset : offset + length]

    def _vector_pages(self) -> Iterator[Buffer]:
        """Rows as given, in row order, cut into pages; the tail is padded."""
        dtype = "<f4" if self.stored == "fp32" else "<f2"
        order = None if self.partition is None else self.partition.order
        carry = b""
        step = rows_a_chunk(self.spec.dim)
        for start in range(0, self.n, step):
            rows = slice(start, start + step)
            chunk = self.vectors[rows] if order is None else self.vectors[order[rows]]
            data = np.ascontiguousarray(chunk, dtype=dtype).tobytes()
            if carry:
                data = carry + data
            whole = len(data) // PAGE * PAGE
            view = memoryview(data)
            for page in range(0, whole, PAGE):
                yield view[page : page + PAGE]
            carry = bytes(view[whole:])
        if carry:
            yield carry + bytes(aligned(len(carry)) - len(carry))

    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """Keys in order with the row of each."""
        order = None if self.partition is None else self.partition.order
        keys = np.arange(self.n, dtype="<u8") if self.ids is None else self.ids.keys
        if order is not None:
            keys = keys[order]
        by_key = np.argsort(keys, kind="stable")
        return keys[by_key].astype("<u8"), by_key.astype("<u4")


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data


def rows_a_chunk(dim: int, room: Room = IN_MEMORY) -> int:
    """Rows of float32 that one thread works on at once."""
    size = CHUNK_BYTES if room.largest is None else min(CHUNK_BYTES, room.largest)
    return max(1, min(CHUNK_ROWS, size // (4 * dim)))


def prepare(vectors: F32, metric: Metric) -> F32:
    """Vectors in the space in which nearest by squared L2 is nearest by the metric (cosine: unit length)."""
    if metric != "cosine":
        return vectors
    unit = np.empty(vectors.shape, dtype=np.float32)
    unit_rows(np.ascontiguousarray(vectors), unit)
    return unit


def mean_of(vectors: F32, metric: Metric) -> F32:
    """f32[dim]: the mean of a batch in the space of `prepare`."""
    total = np.zeros(vectors.shape[1], dtype=np.float64)
    step = rows_a_chunk(vectors.shape[1])
    for start in range(0, len(vectors), step):
        total += prepare(vectors[start : start + step], metric).sum(axis=0, dtype=np.float64)
    return (total / len(vectors)).astype(np.float32)


def form_of(n: int, dim: int, settings: Settings) -> Form:
    """What settings ask of a part of ``n`` rows."""
    k = lists_for(n, dim, settings)
    if k == 1 and n * dim <= settings.small_part_threshold:
        return Form(0, 0, settings.store_vectors)
    return Form(k, capacity_for(n, k, settings) or 0, settings.store_vectors)


def stored_precision(vectors: F32, settings: Settings) -> StoreVectors:
    """As the settings ask, but fp32 where float16 would make infinity or next to nothing of a row."""
    if settings.store_vectors != "fp16":
        return settings.store_vectors
    step = rows_a_chunk(vectors.shape[1])
    for start in range(0, len(vectors), step):
        greatest = np.abs(vectors[start : start + step]).max(axis=1)
        if ((greatest > MAX_HALF) | ((greatest > 0.0) & (greatest < MIN_HALF))).any():
            return "fp32"
    return "fp16"


def build_part(
    vectors: F32,
    ids: Ids | None,
    spec: PartSpec,
    *,
    attributes: Iterable[tuple[str, Column]] = (),
    cells: F32 | None = None,
    room: Room = IN_MEMORY,
    workers: int | None = None,
    progress: Progress | None = None,
) -> PartImage:
    """Quantise, train and lay out a batch.

    Parameters
    ----------
    vectors
        f32[N, dim], finite (and not zero under cosine), N >= 1; not copied, not changed.
    ids
        N ids, or None if they are assigned at commit (protocol R11).
    attributes
        A column of N rows for each attribute that is stored, with its name; they are asked for one by one,
        once all else is done.
    cells
        f32[C, Dp] of `vecstore.part.arrange`, if the rows were put in their order; None to find them here.
    room
        Where what is large lies. The part does not depend on it.
    workers
        Threads; None for all cores of this process. The part does not depend on it.
    progress
        Called with the share that is done, 0 to 1, of a part that is trained, but for its columns.
    """
    n, dim = vectors.shape
    if not 1 <= n <= MAX_PART_ROWS or dim != spec.dim:
        raise AssertionError("a batch is validated before it is built")
    form = form_of(n, dim, spec.settings)
    if not form.lists:
        return _build_small(vectors, ids, spec, form, encode_columns(attributes, room))

    report = within(progress, 0.0, 1.0)
    with Workers(workers or available_cores()) as pool:
        z = rotated(vectors, spec, pool, room)
        report(SHARES[0])
        held_out = held_out_rows(z, spec.seed)
        partition = train(
            z,
            form.lists,
            seed=spec.seed,
            held_out=held_out,
            capacity=form.list_rows or None,
            cells=cells,
            room=room,
            pool=pool,
            progress=within(progress, SHARES[0], SHARES[1]),
        )
        records, lists = _encode(
            z, vectors, ids, partition, spec, codes=True, int8=True, room=room, pool=pool
        )
        codes = _encode_centroids(partition, _spread(z, partition, pool), spec)
        report(SHARES[2])
        calibration = calibrate(
            z,
            held_out,
            partition,
            records,
            lists,
            codes,
            metric=spec.metric,
            rotated_mean=_rotated_mean(spec),
            settings=spec.settings,
            pool=pool,
        )
    stored = stored_precision(vectors, spec.settings)
    report(1.0)
    columns = encode_columns(
        ((name, column.take(partition.order, room)) for name, column in attributes), room
    )
    return PartImage(spec, stored, vectors, ids, partition, records, lists, codes, calibration, columns, form)


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _build_small(
    vectors: F32, ids: Ids | None, spec: PartSpec, form: Form, columns: tuple[Buffer, dict[str, ColumnEntry]]
) -> PartImage:
    """One list that is scanned exactly: by its vectors, or by int8 rows where none are stored."""
    n = len(vectors)
    without_vectors = spec.settings.store_vectors == "none"
    width = spec.rotation.padded_dim
    z = rotated(vectors, spec) if without_vectors else np.zeros((n, width), dtype=np.float32)
    partition = single_list(z)
    records, lists = _encode(z, vectors, ids, partition, spec, codes=False, int8=without_vectors)
    stored = stored_precision(vectors, spec.settings)
    return PartImage(spec, stored, vectors, ids, None, records, lists, None, None, columns, form)


def rotated(vectors: F32, spec: PartSpec, pool: Executor | None = None, room: Room = IN_MEMORY) -> F32:
    """f32[N, Dp]: vectors in the space of `prepare`, centred and rotated."""
    width = spec.rotation.padded_dim
    z = room.empty((len(vectors), width), np.float32)
    step = rows_a_chunk(width, room)

    def some(start: int) -> None:
        rows = slice(start, start + step)
        prepared = np.ascontiguousarray(prepare(vectors[rows], spec.metric), dtype=np.float32)
        spec.rotation.apply(prepared, spec.mean, out=z[rows])

    in_parts(pool, some, range(0, len(vectors), step))
    return z


def _rotated_mean(spec: PartSpec) -> F32 | None:
    return None if spec.mean is None else spec.rotation.apply(spec.mean[None, :])[0]


def _encode(
    z: F32,
    vectors: F32,
    ids: Ids | None,
    partition: Partition,
    spec: PartSpec,
    *,
    codes: bool,
    int8: bool,
    room: Room = IN_MEMORY,
    pool: Executor | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]:
    """All records, and the table of lists."""
    sizes = np.diff(partition.starts)
    width = spec.rotation.padded_dim
    strings = ids.values[partition.order] if ids is not None and ids.kind == "string" else None
    lists = list_table(sizes, width, strings, partition.starts, codes=codes, int8=int8)
    end = int(lists["offset"][-1]) + int(lists["length"][-1])
    offsets = np.append(lists["offset"].astype(np.int64), end)
    records = room.empty((end,), np.uint8)
    values = None
    if strings is None:
        values = np.arange(len(vectors), dtype=np.uint64) if ids is None else ids.values

    def some(batch: tuple[int, int]) -> None:
        first, last = batch
        span = slice(int(partition.starts[first]), int(partition.starts[last]))
        rows = partition.order[span]
        shift = None
        if spec.metric == "dot":
            given = vectors[rows]
            shift = np.einsum("ij,ij->i", given, given, dtype=np.float64).astype(np.float32)
        encode_lists(
            z[rows],
            partition.starts[first : last + 1] - partition.starts[first],
            partition.centroids[first:last],
            partition.scales[first:last],
            shift,
            None if values is None else values[rows],
            codes,
            int8,
            offsets[first : last + 1] - offsets[first],
            records[int(offsets[first]) : int(offsets[last])],
        )

    in_parts(pool, some, _batches(partition.starts, rows_a_chunk(width, room)))
    if strings is not None:
        write_strings(records, lists, strings, width, codes=codes, int8=int8)
    return records, lists


def list_table(
    sizes: npt.NDArray[np.int64],
    width: int,
    strings: npt.NDArray[np.object_] | None,
    starts: npt.NDArray[np.int64],
    *,
    codes: bool,
    int8: bool,
) -> npt.NDArray[Any]:
    """`LIST_DTYPE`[K] of lists of these sizes, whose rows begin at ``starts``, i64[K + 1]."""
    lists = np.zeros(len(sizes), dtype=LIST_DTYPE)
    lists["rows"] = sizes
    lists["first_row"] = starts[:-1]
    blocks = -(-sizes // 32)
    lists["first_block"] = np.cumsum(blocks) - blocks
    id_offsets = {int(n): record_layout(int(n), width, codes, int8)[3] for n in np.unique(sizes)}
    ids_at = np.array([id_offsets[int(n)] for n in sizes], dtype=np.int64)
    if strings is None:
        id_bytes = 8 * sizes
    else:
        lengths = np.fromiter((len(s.encode()) for s in strings), dtype=np.int64, count=len(strings))
        id_bytes = 4 * sizes + np.add.reduceat(lengths, starts[:-1])
    lengths = -(-(ids_at + id_bytes) // 64) * 64
    lists["length"] = lengths
    lists["offset"] = np.cumsum(lengths) - lengths
    return lists


def _batches(starts: npt.NDArray[np.int64], step: int) -> Iterator[tuple[int, int]]:
    """Runs of lists of about a chunk of rows, so that gathered rows stay few."""
    first, k = 0, len(starts) - 1
    while first < k:
        last = int(np.searchsorted(starts, starts[first] + step, side="right")) - 1
        last = min(k, max(first + 1, last))
        yield first, last
        first = last


def write_strings(
    records: npt.NDArray[np.uint8],
    lists: npt.NDArray[Any],
    strings: npt.NDArray[np.object_],
    width: int,
    *,
    codes: bool,
    int8: bool,
) -> None:
    """Put the ids of rows, in row order, into their records."""
    for entry in lists:
        n, first = int(entry["rows"]), int(entry["first_row"])
        some = [value.encode() for value in strings[first : first + n]]
        ends = np.cumsum([len(s) for s in some]).astype("<u4")
        body = ends.tobytes() + b"".join(some)
        at = int(entry["offset"]) + record_layout(n, width, codes, int8)[3]
        records[at : at + len(body)] = np.frombuffer(body, dtype=np.uint8)


def _spread(z: F32, partition: Partition, pool: Executor) -> F32:
    """f32[K]: mean squared distance of each list's rows from its centroid."""
    out = np.empty(partition.k, dtype=np.float32)

    def some(batch: tuple[int, int]) -> None:
        lists = slice(*batch)
        list_spread(
            z,
            partition.order,
            partition.starts[lists.start : lists.stop + 1],
            partition.centroids[lists],
            partition.scales[lists],
            out[lists],
        )

    in_parts(pool, some, _batches(partition.starts, rows_a_chunk(z.shape[1])))
    return out


def _encode_centroids(partition: Partition, spread: F32, spec: PartSpec) -> npt.NDArray[np.uint8]:
    """The centroids' own codes, cell by cell; a list that is spread wide ranks a little farther."""
    shift = -SPREAD_WEIGHT * spread
    mean = _rotated_mean(spec)
    blocks = []
    for cell, centre in enumerate(partition.cells):
        lists = slice(int(partition.cell_lists[cell]), int(partition.cell_lists[cell + 1]))
        exact = partition.centroids[lists].astype(np.float32) * partition.scales[lists, None]
        if spec.metric == "dot":
            given = exact if mean is None else exact + mean
            shift[lists] += np.einsum("ij,ij->i", given, given, dtype=np.float64).astype(np.float32)
        blocks.append(encode_rabitq(exact, centre, shift[lists]))
    return np.concatenate(blocks)
