"""What changes a namespace: rows, settings and tags. Validates at the door, uploads, and commits once.

Imports changes, manifest, part and rows; reads parts only to find the rows that a write depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np

from vecstore import deadline
from vecstore.engine.changes import DeleteRows, InsertRows, Refused, UpdateSchema
from vecstore.engine.choice import Choice, Resolver, check_id_kind
from vecstore.engine.patches import Copies, PatchRows
from vecstore.errors import (
    InvalidArgument,
    InvalidAttribute,
    InvalidFilter,
    InvalidId,
    NamespaceNotFound,
    StorageError,
    StorageMissing,
)
from vecstore.index.rotation import Rotation
from vecstore.index.view import Views
from vecstore.limits import MAX_DELETE_IDS, MAX_PATCH_IDS, MAX_ROW_JSON_BYTES
from vecstore.manifest.attempt import Committed
from vecstore.manifest.draft import Change
from vecstore.manifest.keys import part_key
from vecstore.manifest.lifecycle import UpdateSettings
from vecstore.manifest.model import Manifest, Mean, Part, Pin
from vecstore.manifest.pins import add_tag, remove_tag
from vecstore.manifest.publish import Publisher
from vecstore.manifest.restore import restore
from vecstore.manifest.uid import new_uid
from vecstore.params import check_rows
from vecstore.part.builder import PartImage, PartSpec, build_part, mean_of
from vecstore.progress import Progress, within
from vecstore.rows.attributes import digest, digest_named, one_row, parse_attributes, parse_patch
from vecstore.rows.column import Column
from vecstore.rows.filters import Expression, filter_bytes, parse_condition, parse_filter
from vecstore.rows.filters.conditions import references
from vecstore.rows.ids import Ids, parse_ids, validate_name
from vecstore.rows.schema import declared, parse_schema
from vecstore.rows.vectors import as_vectors
from vecstore.storage.forks import OwnProcess
from vecstore.types import F32, DeleteResult, Expected, InsertResult, PatchResult, RowId, Tag, WriteMode

_BUILT = 0.9  # of an insert, once its part is built
NEVER: Final = b'["id", "Eq", null]'  # a condition that no row meets


class Writes:
    """The writes of one namespace in one process. Thread-safe.

    Parameters
    ----------
    publisher
        Of the namespace: one a process, so that commits are grouped.
    views
        Whose readers of parts are shared.
    wrote
        Is told the name of the namespace after each commit.
    """

    def __init__(
        self,
        publisher: Publisher,
        views: Views,
        executor: Callable[[], Executor],
        process: OwnProcess,
        wrote: Callable[[str], None],
    ) -> None:
        self._publisher = publisher
        self._store = publisher.store
        self._name = publisher.namespace
        self._snapshots = publisher.snapshots
        self._rng = publisher.rng
        self._views = views
        self._executor = executor
        self._process = process
        self._wrote = wrote

    def insert(
        self,
        values: object,
        given_ids: object,
        *,
        attributes: object = None,
        schema: object = None,
        mode: WriteMode = "upsert",
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None = None,
        idempotency_key: str | None = None,
        progress: Progress | None = None,
    ) -> InsertResult:
        """Build, upload and commit one part.

        What is known of the namespace will do to begin with, since the commit is made upon what is current:
        that is read beside the upload. If it is another than was known, all but the commit is done again.
        """
        self._process.check()
        build = partial(
            self._insertion,
            values,
            given_ids,
            attributes=attributes,
            schema=schema,
            mode=mode,
            condition=_condition_of(mode, condition, given_ids),
            expected=expected,
            idempotency_key=idempotency_key,
            progress=progress,
        )
        with self._publisher.arriving() as arrival:
            known, change = self._snapshots.cached(), None
            if known is not None and known.manifest.state == "active":
                try:
                    change = build(known.manifest, fresh=False)
                except InvalidArgument:  # unless it was answered before, which the current epoch tells
                    if idempotency_key is None and self._snapshots.strong().etag == known.etag:
                        raise
            if change is None:
                change = build(self._snapshots.strong().manifest, fresh=True)
                assert change is not None  # only what was known before can be outdated
            done = self._publisher.commit(change, arrival)
        self._wrote(self._name)
        within(progress, _BUILT, 1.0)(1.0)
        base, n = done.answer["id_base"], done.answer["n"]
        assigned = None if base is None else np.arange(base, base + n, dtype=np.uint64)
        return InsertResult(
            done.answer["part_id"],
            n,
            done.epoch,
            done.answer["upserted"],
            assigned,
            done.manifest.incarnation,
            done.answer["skipped"],
            change.written(assigned)
            if return_ids and not done.replayed and isinstance(change, InsertRows)
            else None,
        )

    def _insertion(
        self,
        values: object,
        given_ids: object,
        manifest: Manifest,
        *,
        fresh: bool,
        attributes: object,
        schema: object,
        mode: WriteMode,
        condition: bytes | None,
        expected: Expected | None,
        idempotency_key: str | None,
        progress: Progress | None,
    ) -> InsertRows | Refused | None:
        """The change that adds rows, their part uploaded; None if the manifest turns out to be outdated."""
        vectors = as_vectors(values, manifest.dim, manifest.metric)
        ids = None if given_ids is None else parse_ids(given_ids)
        if ids is not None and len(ids) != len(vectors):
            raise InvalidId(f"{len(ids)} ids for {len(vectors)} vectors", field="ids", limit=len(vectors))
        specs = declared(schema)
        expression = None if condition is None else parse_condition(condition)
        idempotency = None
        if idempotency_key is not None:
            more = b"" if attributes is None and not specs else digest(attributes, len(vectors), specs)
            told = _digest(b"insert", mode, vectors, ids, more + _compact(condition or b""))
            idempotency = idempotency_key, told
        try:
            if ids is not None:
                check_id_kind(manifest, ids)
            elif manifest.id_kind == "string":
                raise InvalidId(
                    f"namespace {self._name!r} has string ids, which cannot be assigned",
                    field="ids",
                    kind="string",
                )
            columns = parse_attributes(attributes, len(vectors), manifest.attributes, specs)
        except InvalidArgument as error:
            if idempotency is None or not fresh:
                raise
            return self._refused(manifest, error, expected, idempotency)
        mean = self.mean_for(manifest, vectors)
        image = build_part(
            vectors,
            ids,
            self.spec(manifest, mean),
            attributes=columns.items(),
            progress=deadline.checked(within(progress, 0.0, _BUILT)),
        )
        deadline.check()
        choice = None
        if ids is not None:
            readers = self._views.reader
            choice = Choice(readers, resolver=Resolver(ids, readers), expression=expression, given=columns)
        begin = self._executor().submit
        copying, uploading = begin(self._publisher.prepare), begin(self.upload, image, mean)
        looking = None if fresh else begin(self._current)
        collected = False
        try:
            if choice is not None:
                choice.look_ahead(manifest, self._executor())
        except StorageMissing:  # parts of an old epoch may have been collected
            if fresh:
                raise
            collected = True
        finally:
            copying.result()
            part = uploading.result()
            current = manifest if looking is None else looking.result()
        if collected or current is None or _meaning(current) != _meaning(manifest):
            return None
        change = InsertRows(
            commit_id=self._publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            expected=expected,
            idempotency=idempotency,
            part=part,
            order=np.arange(len(vectors)) if image.partition is None else image.partition.order,
            columns={name: column.spec for name, column in columns.items()},
            declared=specs,
            choice=choice,
            mode=mode,
            mean=mean,
            upload=lambda: self.upload(image, mean),
        )
        if expression is not None:
            self._publisher.rehearse(change)
        return change

    def _current(self) -> Manifest | None:
        """The current epoch, ahead of a commit; None if it cannot be had, or there is none."""
        with suppress(StorageError, NamespaceNotFound):
            return self._snapshots.strong().manifest
        return None

    def delete(
        self,
        given_ids: object,
        *,
        filter: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None = None,
        idempotency_key: str | None = None,
    ) -> DeleteResult:
        """Kill the rows of ids, those of them that meet a condition, or all that a filter matches.

        They are chosen when the commit is made; ids that are not there are no error.
        """
        self._process.check()
        asked = _asked(given_ids, filter, condition, most=MAX_DELETE_IDS)
        _refuse_references(asked.expression, ())
        manifest = self._snapshots.strong().manifest
        change = DeleteRows(
            commit_id=self._publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            expected=expected,
            idempotency=_idempotency(idempotency_key, b"delete", asked),
            choice=self._choice(asked),
            return_ids=return_ids,
        )
        done = self._commit(manifest, change, change.choice)
        return DeleteResult(
            done.answer["deleted"],
            done.epoch,
            manifest.incarnation,
            done.answer["skipped"],
            None if done.replayed else change.affected,
        )

    def patch(
        self,
        given_ids: object,
        attributes: object,
        *,
        filter: object = None,
        schema: object = None,
        condition: object = None,
        return_ids: bool = False,
        expected: Expected | None = None,
        idempotency_key: str | None = None,
    ) -> PatchResult:
        """Give the rows of ids, or all that a filter matches, other values of some attributes.

        Parameters
        ----------
        attributes
            With ids as of an insert, but what a row does not name stays as it is; with a filter one
            object, the values that all of them get.
        """
        self._process.check()
        asked = _asked(given_ids, filter, condition, most=MAX_PATCH_IDS)
        specs = declared(schema)
        if asked.ids is None:
            attributes = _one_row(attributes)
        n = 1 if asked.ids is None else len(asked.ids)
        manifest = self._snapshots.strong().manifest
        idempotency = None
        if idempotency_key is not None:
            told = digest(attributes, n, specs) + digest_named(attributes, n)
            idempotency = idempotency_key, _digest(b"patch", "", None, asked.ids, _compact(asked.data) + told)
        try:
            new = parse_patch(attributes, n, manifest.attributes, specs)
        except InvalidAttribute as error:
            if idempotency is None:
                raise
            done = self._publisher.commit(self._refused(manifest, error, expected, idempotency))
            return _patched(done, None)
        _refuse_references(asked.expression, new)
        columns = {name: one.column for name, one in new.items() if one.column is not None}
        change = PatchRows(
            commit_id=self._publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            expected=expected,
            idempotency=idempotency,
            choice=self._choice(asked, columns),
            copies=Copies(new, self._views.reader, self.spec, self.upload),
            declared={**specs, **{name: column.spec for name, column in columns.items()}},
            asked=None if asked.ids is None else n,
            return_ids=return_ids,
        )
        done = self._commit(manifest, change, change.choice)
        return _patched(done, change.affected)

    def _refused(
        self,
        manifest: Manifest,
        error: InvalidArgument,
        expected: Expected | None,
        idempotency: tuple[str, str],
    ) -> Refused:
        """A request that does not fit the namespace now, but may have been answered when it did."""
        return Refused(
            commit_id=self._publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            expected=expected,
            idempotency=idempotency,
            error=error,
        )

    def _choice(self, asked: _Asked, given: Mapping[str, Column] | None = None) -> Choice:
        readers = self._views.reader
        return Choice(
            readers,
            resolver=None if asked.ids is None else Resolver(asked.ids, readers),
            expression=asked.expression,
            given=given,
        )

    def _commit(self, manifest: Manifest, change: Change, choice: Choice) -> Committed:
        """Commit what depends on rows that are there, having done ahead of its turn all that it takes."""
        copying = self._executor().submit(self._publisher.prepare)
        try:
            # The commit asks again, of what is current: it may have been answered, or parts be merged.
            with suppress(InvalidArgument, StorageMissing):
                choice.look_ahead(manifest, self._executor())
        finally:
            copying.result()
        self._publisher.rehearse(change)
        done = self._publisher.commit(change)
        self._wrote(self._name)
        return done

    def update_settings(
        self, changes: dict[str, Any], *, schema: object = None, expected: Expected | None = None
    ) -> Committed:
        """Change some defaults, the values of which are validated already, and some attributes."""
        self._process.check()
        specs = None if schema is None else parse_schema(schema, drop=True)
        manifest = self._snapshots.strong().manifest
        if specs is not None:
            return self._publisher.commit(
                UpdateSchema(
                    commit_id=self._publisher.new_commit_id(),
                    incarnation=manifest.incarnation,
                    expected=expected,
                    settings=changes,
                    changes=specs,
                )
            )
        return self._publisher.commit(
            UpdateSettings(
                commit_id=self._publisher.new_commit_id(),
                incarnation=manifest.incarnation,
                expected=expected,
                changes=changes,
            )
        )

    def restore(self, epoch: int, *, expected: Expected) -> Committed:
        """Make a past epoch current again."""
        self._process.check()
        done = restore(self._publisher, epoch, expected=expected)
        self._wrote(self._name)
        return done

    def tag(self, name: str, epoch: int | None = None) -> Tag:
        """Hold an epoch against collection, the current one if none is named."""
        self._process.check()
        return tag_of(add_tag(self._publisher, validate_name(name), epoch))

    def untag(self, name: str) -> None:
        """Delete a tag."""
        self._process.check()
        remove_tag(self._publisher, validate_name(name))

    def spec(self, manifest: Manifest, mean: Mean | None) -> PartSpec:
        """How parts of this namespace are encoded now."""
        return PartSpec(
            dim=manifest.dim,
            metric=manifest.metric,
            rotation=Rotation(manifest.dim, manifest.rotation_seed),
            settings=manifest.settings,
            mean=None if mean is None else np.frombuffer(mean.f32, dtype="<f4").astype(np.float32),
            seed=manifest.rotation_seed,
        )

    def mean_for(self, manifest: Manifest, vectors: F32) -> Mean | None:
        """The centre of a new part: the newest, or that of a first batch which is large."""
        if manifest.means:
            return manifest.means[-1]
        if vectors.size <= manifest.settings.small_part_threshold:
            return None
        values = mean_of(vectors, manifest.metric).astype("<f4").tobytes()
        return Mean(hashlib.blake2b(values, digest_size=8).hexdigest(), values)

    def upload(self, image: PartImage, mean: Mean | None, *, progress: Progress | None = None) -> Part:
        """Put a part under a new id; its line of the manifest."""
        began = self._store.now()
        part_id = new_uid(self._store.now, self._rng)
        self._store.put_stream(part_key(self._name, part_id), image.chunks(progress))
        return image.entry(
            part_id=part_id, owner=self._name, began=began, mean=None if mean is None else mean.id
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Rows that a write names: by ids and perhaps a condition, or by a filter; and its JSON."""

    ids: Ids | None
    expression: Expression | None
    data: bytes


def _asked(given_ids: object, filter: object, condition: object, *, most: int) -> _Asked:
    check_rows(given_ids, filter)
    if filter is not None:
        if condition is not None:
            raise InvalidArgument("a condition goes with ids; a filter says it itself", field="condition")
        data = filter if isinstance(filter, bytes) else filter_bytes(filter)
        return _Asked(None, parse_filter(data), data)
    ids = parse_ids(given_ids)
    if not 1 <= len(ids) <= most:
        raise InvalidId(f"ids must be 1 to {most}", field="ids", limit=most)
    if condition is None:
        return _Asked(ids, None, b"")
    data = _condition_bytes(condition)
    return _Asked(ids, parse_condition(data), data)


def _condition_bytes(condition: object) -> bytes:
    return condition if isinstance(condition, bytes) else filter_bytes(condition, field="condition")


def _condition_of(mode: WriteMode, condition: object, given_ids: object) -> bytes | None:
    """The condition of an insert; of ``"insert_if_absent"`` one that no row meets."""
    if condition is None and mode != "insert_if_absent":
        return None
    if given_ids is None:
        raise InvalidArgument("a condition on rows that are there needs ids", field="ids")
    if condition is None:
        return NEVER
    if mode != "upsert":
        raise InvalidArgument('a condition goes with the mode "upsert"', field="condition")
    return _condition_bytes(condition)


def _refuse_references(expression: Expression | None, given: Collection[str]) -> None:
    """`InvalidFilter` for a condition on a new value that the write does not give."""
    for one in () if expression is None else references(expression):
        if one.value.attribute not in given:
            place = f"{one.at}[2]"
            raise InvalidFilter(
                f"{place} refers to {one.value.attribute!r}, to which the write gives no value",
                field="condition",
                at=place,
            )


def _patched(done: Committed, affected: list[RowId] | None) -> PatchResult:
    answer = done.answer
    return PatchResult(
        answer["patched"],
        done.epoch,
        done.manifest.incarnation,
        answer["skipped"],
        answer["absent"],
        None if done.replayed else affected,
    )


def _one_row(attributes: object) -> object:
    """One object of values, or its JSON, as a list of rows."""
    if isinstance(attributes, bytes) and attributes.startswith(b"{"):
        if len(attributes) > MAX_ROW_JSON_BYTES:
            raise InvalidAttribute(
                f"attributes has {len(attributes)} bytes of JSON; at most {MAX_ROW_JSON_BYTES} are kept",
                field="attributes",
                limit=MAX_ROW_JSON_BYTES,
            )
        return b"[" + attributes + b"]"
    return one_row(attributes)


def _idempotency(key: str | None, kind: bytes, asked: _Asked) -> tuple[str, str] | None:
    return None if key is None else (key, _digest(kind, "", None, asked.ids, _compact(asked.data)))


def _compact(data: bytes) -> bytes:
    """The JSON of a filter without blanks, which a repeated request may set otherwise."""
    return msgspec.json.format(data, indent=-1) if data else b""


def tag_of(pin: Pin) -> Tag:
    """A tag as its users see it."""
    return Tag(pin.name, pin.epoch, pin.created_at)


def _meaning(manifest: Manifest) -> tuple[object, ...]:
    """What the rows of a write were validated and laid out by."""
    return manifest.incarnation, manifest.attributes


def _digest(kind: bytes, mode: str, vectors: F32 | None, ids: Ids | None, more: bytes = b"") -> str:
    """What a request asks, for `Idempotency-Key` (R12)."""
    h = hashlib.blake2b(kind + b"\0" + mode.encode(), digest_size=16)
    if vectors is not None:
        h.update(repr(vectors.shape).encode())
        h.update(np.ascontiguousarray(vectors).data)
    if ids is not None:
        h.update(ids.kind.encode())
        h.update(msgspec.json.encode(ids.values.tolist()) if ids.kind == "string" else ids.values.tobytes())
    h.update(more)
    return h.hexdigest()
