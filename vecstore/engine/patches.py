"""Patches: other attributes for rows that stay as they are.

A part never changes, so a patched row is a copy: its vector, its id and the attributes that the patch
leaves alone are taken over, the old row dies in the same commit (decision 0022). Rows of a large part go
on in its lists (`vecstore.part.subset`); few of a part make a small part that is scanned exactly.

Copies depend on the rows that they were made of. A row never changes, so as long as it is alive its copy
is true; at each attempt rows that have died meanwhile are dead in the copy, and what is to be patched and
has no copy is copied then (protocol R7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, structs
from pyroaring import BitMap

from vecstore.engine.changes import kill
from vecstore.engine.choice import Choice, Chosen, Content, Readers, content_of
from vecstore.engine.schema import add_to
from vecstore.errors import InvalidAttribute
from vecstore.limits import MAX_RETURNED_IDS, MAX_ROW_BYTES
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.model import Attribute, Manifest, Mean, Part
from vecstore.part.builder import PartImage, PartSpec, build_part
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.part.subset import copy_rows
from vecstore.rows.attributes import Replacement
from vecstore.rows.column import Column, as_buffer, element_bytes, joined, nulls
from vecstore.rows.ids import Ids, keys_of
from vecstore.rows.schema import Spec
from vecstore.storage.cache import ReadTrace
from vecstore.types import RowId

I64 = npt.NDArray[np.int64]

PIECE_BYTES: Final = 256 << 20  # of vectors and attributes that are held at once, for one part of copies
ATTRIBUTE_COPIES: Final = 4  # of attributes that are held: as they are read, joined, in order, packed


@dataclass(kw_only=True, eq=False)
class PatchRows(Change):
    """Give attributes of the rows that are chosen other values.

    Attributes
    ----------
    declared
        The attributes that are named, and those that the caller declared besides.
    asked
        How many ids were given; None where a filter chooses.
    return_ids, affected
        As of `vecstore.engine.changes.DeleteRows`.
    """

    choice: Choice
    copies: Copies
    declared: Mapping[str, Spec]
    asked: int | None
    return_ids: bool = False
    affected: list[RowId] | None = None

    def apply(self, draft: Draft) -> dict[str, Any]:
        before = draft.mark()
        add_to(draft, self.declared, field="attributes")
        found = self.choice.find(draft)
        if self.return_ids:
            self.affected = self.choice.ids_of(found, draft.manifest, MAX_RETURNED_IDS)
        skipped = len(found.passed_over)
        absent = 0 if self.asked is None else self.asked - found.count - skipped
        if found.chosen:
            copies = self.copies.of(draft.manifest, found.chosen)
            kill(draft, found)
            for copy, dead in copies:
                if copy.mean is not None:
                    draft.add_mean(copy.mean)
                draft.add_part(copy.part)
                draft.kill(copy.part.id, dead)
        else:
            draft.go_back(before)
        return {"patched": found.count, "skipped": skipped, "absent": absent}

    def oldest_upload(self) -> float | None:
        return self.copies.oldest

    def upload_again(self) -> None:
        self.copies.forget()


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """A part of patched rows.

    Attributes
    ----------
    spans
        For each part that it has rows of: which, ascending, and where in the copy they begin.
    """

    part: Part
    mean: Mean | None
    spans: Mapping[Content, tuple[I64, int]]


class Copies:
    """Makes and remembers the copies of one patch.

    Parameters
    ----------
    replacements
        The new values; a value an id that was given, or a single one for all.
    spec
        How parts of the namespace are encoded now.
    upload
        Puts a part under a new id; its line of the manifest.
    """

    def __init__(
        self,
        replacements: Mapping[str, Replacement],
        readers: Readers,
        spec: Callable[[Manifest, Mean | None], PartSpec],
        upload: Callable[[PartImage, Mean | None], Part],
    ) -> None:
        self._replacements = replacements
        self._readers = readers
        self._spec = spec
        self._upload = upload
        self._made: list[Copy] = []
        self._schema: Mapping[str, Attribute] = {}

    @property
    def oldest(self) -> float | None:
        """When the upload of the first of them began."""
        return min((copy.part.began for copy in self._made), default=None)

    def forget(self) -> None:
        self._made = []

    def of(self, manifest: Manifest, chosen: Sequence[Chosen]) -> list[tuple[Copy, BitMap]]:
        """Copies of all rows that were chosen, each with those of its rows that were not.

        `InvalidAttribute` if a row's attributes take more than they may.
        """
        if manifest.attributes != self._schema:  # the copies have columns of other attributes
            self._made, self._schema = [], manifest.attributes
        lacking = [left for one in chosen if len(left := self._without_copy(one))]
        self._made += [self._copy(manifest, some) for some in self._packed(manifest, lacking)]
        found = []
        for copy in self._made:
            wanted = np.zeros(copy.part.n, dtype=np.bool_)
            for one in chosen:
                if (span := copy.spans.get(content_of(one.part))) is not None:
                    rows, first = span
                    wanted[first : first + len(rows)] = np.isin(rows, one.rows)
            if wanted.any():
                found.append((copy, BitMap(np.flatnonzero(~wanted).tolist())))
        self._made = [copy for copy, _ in found]
        return found

    def _without_copy(self, one: Chosen) -> Chosen:
        lacking = np.ones(len(one), dtype=np.bool_)
        for copy in self._made:
            if (span := copy.spans.get(content_of(one.part))) is not None:
                lacking &= ~np.isin(one.rows, span[0])
        return one.where(lacking)

    def _packed(self, manifest: Manifest, chosen: Sequence[Chosen]) -> Iterator[list[Chosen]]:
        """What goes into one part each: a piece of a large part, or the few rows of some parts together."""
        few: dict[str, list[Chosen]] = {}
        held: dict[str, int] = {}
        most = manifest.settings.small_part_threshold // manifest.dim
        for one in chosen:
            each = self._row_bytes(manifest, one.part)
            step = max(1, PIECE_BYTES // each)
            for start in range(0, len(one), step):
                some = one.where(slice(start, start + step))
                kind = one.part.vectors
                if kind == "none" or len(some) > most:
                    yield [some]
                    continue
                together, size = few.get(kind, []), held.get(kind, 0) + len(some) * each
                if together and (sum(map(len, together)) + len(some) > most or size > PIECE_BYTES):
                    yield together
                    together, size = [], len(some) * each
                few[kind], held[kind] = [*together, some], size
        yield from few.values()

    def _row_bytes(self, manifest: Manifest, part: Part) -> int:
        """About how much is held for a row of a part while it is copied."""
        rows = PartRows(self._readers(manifest, part), ReadTrace())
        columns = (rows.column(name, known.id) for name, known in manifest.attributes.items())
        attributes = sum(column.bytes_held for column in columns if column is not None)
        return 4 * manifest.dim + ATTRIBUTE_COPIES * attributes // part.n

    def _copy(self, manifest: Manifest, chosen: Sequence[Chosen]) -> Copy:
        readers = [self._readers(manifest, one.part) for one in chosen]
        ids = _ids_of(readers, chosen)
        columns = self._columns(manifest, readers, chosen)
        if self._fits_small(manifest, chosen):
            mean = manifest.means[-1] if manifest.means else None
            image = self._small(manifest, mean, readers, chosen, ids, columns)
        else:
            (one,), (reader,) = chosen, readers
            mean = next((mean for mean in manifest.means if mean.id == one.part.mean), None)
            image = copy_rows(reader, one.rows, ids, columns, self._spec(manifest, mean), ReadTrace())
        part = self._upload(image, mean)
        numbers = tuple(manifest.attributes[name].id for name in image.columns[1])
        spans, first = {}, 0
        for one in chosen:
            spans[content_of(one.part)] = one.rows, first
            first += len(one)
        return Copy(structs.replace(part, columns=numbers or UNSET), mean, spans)

    def _fits_small(self, manifest: Manifest, chosen: Sequence[Chosen]) -> bool:
        rows = sum(map(len, chosen))
        return (
            chosen[0].part.vectors != "none" and rows * manifest.dim <= manifest.settings.small_part_threshold
        )

    def _small(
        self,
        manifest: Manifest,
        mean: Mean | None,
        readers: Sequence[PartReader],
        chosen: Sequence[Chosen],
        ids: Ids,
        columns: Mapping[str, Column],
    ) -> PartImage:
        """A part that is scanned by its vectors, which it keeps as they were kept."""
        vectors = []
        for reader, one in zip(readers, chosen, strict=True):
            some = reader.read_vectors(one.rows, ReadTrace())
            assert some is not None  # or they would not be here
            vectors.append(some)
        spec = self._spec(manifest, mean)
        kept = structs.replace(spec.settings, store_vectors=chosen[0].part.vectors)
        return build_part(
            np.concatenate(vectors), ids, replace(spec, settings=kept), attributes=columns.items()
        )

    def _columns(
        self, manifest: Manifest, readers: Sequence[PartReader], chosen: Sequence[Chosen]
    ) -> dict[str, Column]:
        """The attributes of the copies: the old values, but where the patch has new ones."""
        sources = [PartRows(reader, ReadTrace()) for reader in readers]
        for source in sources:
            there = (source.column(name, known.id) for name, known in manifest.attributes.items())
            columns = [column for column in there if column is not None]
            source.fetch([span for column in columns for span in column.spans(inverted=False)])
        which = np.concatenate([one.which for one in chosen])
        sizes = np.zeros(len(which), dtype=np.int64)
        found = {}
        for name, known in sorted(manifest.attributes.items()):
            spec = Spec(known.type, known.filterable)
            old = []
            for source, one in zip(sources, chosen, strict=True):
                reader = source.column(name, known.id)
                old.append(nulls(spec, len(one)) if reader is None else reader.column(one.rows))
            column = joined(old)
            if (new := self._replacements.get(name)) is not None:
                at = np.where(new.given[which], len(which) + which, np.arange(len(which)))
                values = nulls(spec, len(new.given)) if new.column is None else new.column
                column = joined([column, values]).take(at)
            if not column.null.all():
                found[name] = column
                each = element_bytes(as_buffer(column.elements))
                np.add.at(sizes, np.repeat(np.arange(len(column)), column.counts), each)
        if int(sizes.max()) > MAX_ROW_BYTES:
            row = int(np.argmax(sizes))
            raise InvalidAttribute(
                f"attributes: with what it has, those of row {int(which[row])} would take"
                f" {int(sizes[row])} bytes; at most {MAX_ROW_BYTES} are kept",
                field="attributes",
                row=int(which[row]),
                limit=MAX_ROW_BYTES,
            )
        return found


def _ids_of(readers: Sequence[PartReader], chosen: Sequence[Chosen]) -> Ids:
    values = np.concatenate(
        [reader.ids_of(one.rows, ReadTrace()) for reader, one in zip(readers, chosen, strict=True)]
    )
    if readers[0].id_kind == "string":
        return Ids("string", values, keys_of(values))
    return Ids("u64", values, values)
