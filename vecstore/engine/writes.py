"""What changes a namespace: rows, settings and tags. Validates at the door, uploads, and commits once.

Imports changes, manifest, part and rows; reads parts only to find the rows that a write depends on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
import numpy as np

from vecstore.engine.changes import (
    DeleteMatching,
    DeleteRows,
    InsertRows,
    Refused,
    Resolver,
    UpdateSchema,
    check_id_kind,
)
from vecstore.errors import (
    InvalidArgument,
    InvalidAttribute,
    InvalidId,
    NamespaceNotFound,
    StorageError,
    StorageMissing,
)
from vecstore.index.filtered import narrowed
from vecstore.index.rotation import Rotation
from vecstore.index.view import Views
from vecstore.limits import MAX_DELETE_IDS
from vecstore.manifest.keys import part_key
from vecstore.manifest.lifecycle import UpdateSettings
from vecstore.manifest.model import Manifest, Mean, Part, Pin
from vecstore.manifest.pins import add_tag, remove_tag
from vecstore.manifest.publish import Committed, Publisher
from vecstore.manifest.restore import restore
from vecstore.manifest.uid import new_uid
from vecstore.part.builder import PartImage, PartSpec, build_part, mean_of
from vecstore.progress import Progress, within
from vecstore.rows.attributes import digest, parse_attributes
from vecstore.rows.filters import filter_bytes, parse_filter
from vecstore.rows.ids import Ids, parse_ids, validate_name
from vecstore.rows.schema import declared, parse_schema
from vecstore.rows.vectors import as_vectors
from vecstore.storage.cache import ReadTrace
from vecstore.storage.forks import OwnProcess
from vecstore.types import F32, DeleteResult, Expected, InsertResult, Tag, WriteMode

_BUILT = 0.9  # of an insert, once its part is built


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
            expected=expected,
            idempotency_key=idempotency_key,
            progress=progress,
        )
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
        done = self._publisher.commit(change)
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
        expected: Expected | None,
        idempotency_key: str | None,
        progress: Progress | None,
    ) -> InsertRows | Refused | None:
        """The change that adds rows, their part uploaded; None if the manifest turns out to be outdated."""
        vectors = as_vectors(values, manifest.dim, manifest.metric)
        ids = None if given_ids is None else parse_ids(given_ids)
        if ids is not None and len(ids) != len(vectors):
            raise InvalidId(f"{len(ids)} ids for {len(vectors)} vectors", field="ids", limit=len(vectors))
        if ids is not None:
            check_id_kind(manifest, ids)
        elif manifest.id_kind == "string":
            raise InvalidId(
                f"namespace {self._name!r} has string ids, which cannot be assigned",
                field="ids",
                kind="string",
            )
        specs = declared(schema)
        idempotency = None
        if idempotency_key is not None:
            more = b"" if attributes is None and not specs else digest(attributes, len(vectors), specs)
            idempotency = idempotency_key, _digest(b"insert", mode, vectors, ids, more)
        try:
            columns = parse_attributes(attributes, len(vectors), manifest.attributes, specs)
        except InvalidAttribute as error:
            if idempotency is None or not fresh:
                raise
            return Refused(
                commit_id=self._publisher.new_commit_id(),
                incarnation=manifest.incarnation,
                expected=expected,
                idempotency=idempotency,
                error=error,
            )
        mean = self.mean_for(manifest, vectors)
        image = build_part(
            vectors,
            ids,
            self.spec(manifest, mean),
            attributes=columns.items(),
            progress=within(progress, 0.0, _BUILT),
        )
        resolver = None if ids is None else Resolver(ids, self._views.reader)
        begin = self._executor().submit
        copying, uploading = begin(self._publisher.prepare), begin(self.upload, image, mean)
        looking = None if fresh else begin(self._current)
        collected = False
        try:
            if resolver is not None:
                resolver.look_ahead(manifest, self._executor())
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
        return InsertRows(
            commit_id=self._publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            expected=expected,
            idempotency=idempotency,
            part=part,
            columns={name: column.spec for name, column in columns.items()},
            declared=specs,
            resolver=resolver,
            mode=mode,
            mean=mean,
            upload=lambda: self.upload(image, mean),
        )

    def _current(self) -> Manifest | None:
        """The current epoch, ahead of a commit; None if it cannot be had, or there is none."""
        with suppress(StorageError, NamespaceNotFound):
            return self._snapshots.strong().manifest
        return None

    def delete(
        self,
        given_ids: object,
        *,
        expected: Expected | None = None,
        idempotency_key: str | None = None,
    ) -> DeleteResult:
        """Kill the rows of ids in one commit; ids that are not there are no error."""
        self._process.check()
        manifest = self._snapshots.strong().manifest
        ids = parse_ids(given_ids)
        if not 1 <= len(ids) <= MAX_DELETE_IDS:
            raise InvalidId(f"ids must be 1 to {MAX_DELETE_IDS}", field="ids", limit=MAX_DELETE_IDS)
        check_id_kind(manifest, ids)
        asked = None if idempotency_key is None else _digest(b"delete", "", None, ids)
        resolver = Resolver(ids, self._views.reader)
        copying = self._executor().submit(self._publisher.prepare)
        try:
            resolver.look_ahead(manifest, self._executor())
        finally:
            copying.result()
        done = self._publisher.commit(
            DeleteRows(
                commit_id=self._publisher.new_commit_id(),
                incarnation=manifest.incarnation,
                expected=expected,
                idempotency=None if asked is None or idempotency_key is None else (idempotency_key, asked),
                resolver=resolver,
            )
        )
        self._wrote(self._name)
        return DeleteResult(done.answer["deleted"], done.epoch, manifest.incarnation)

    def delete_matching(
        self, given: object, *, expected: Expected | None = None, idempotency_key: str | None = None
    ) -> DeleteResult:
        """Kill the rows that a filter matches when the commit is made."""
        self._process.check()
        data = given if isinstance(given, bytes) else filter_bytes(given)
        expression = parse_filter(data)
        manifest = self._snapshots.strong().manifest
        # Evaluated ahead, so that it costs the others nothing who wait to commit; and refused here.
        narrowed(self._views.open(manifest, ReadTrace()), data, ReadTrace(), self._executor)
        done = self._publisher.commit(
            DeleteMatching(
                commit_id=self._publisher.new_commit_id(),
                incarnation=manifest.incarnation,
                expected=expected,
                idempotency=None
                if idempotency_key is None
                else (idempotency_key, _digest(b"delete", "", None, None, data)),
                expression=expression,
                readers=self._views.reader,
            )
        )
        self._wrote(self._name)
        return DeleteResult(done.answer["deleted"], done.epoch, manifest.incarnation)

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
