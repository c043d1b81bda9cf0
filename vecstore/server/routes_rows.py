"""Rows: insert, patch, delete, read by id."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from flask import Flask, Response

from vecstore.api import Backend
from vecstore.config import Config
from vecstore.errors import InvalidId
from vecstore.limits import MAX_BATCH_ROWS, MAX_DELETE_IDS, MAX_PATCH_IDS, MAX_U64
from vecstore.server import wire
from vecstore.server.handlers import answer
from vecstore.server.requests import flag, idempotency_key, if_match, json_body, past_epoch, query, takes
from vecstore.types import F32, Row, RowId

_insert = msgspec.json.Decoder(wire.InsertRows)
_delete = msgspec.json.Decoder(wire.DeleteRows)
_patch = msgspec.json.Decoder(wire.PatchRows)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,19}")  # int() takes no more than 4,300 digits


def register(app: Flask, backend: Backend, config: Config) -> None:
    """Add the routes."""
    limit = config.max_body_bytes

    def insert(ns: str) -> Response:
        query()
        takes("If-Match", "Idempotency-Key")
        expected, key = if_match(), idempotency_key()
        asked = json_body(_insert, limit)
        values = batch(backend, ns, asked.vectors, asked.dim, limit=MAX_BATCH_ROWS)
        asked.vectors = msgspec.Raw()
        ids, attributes, condition = _taken(asked, "ids", "attributes", "condition")
        done = backend.insert(
            ns,
            values,
            wire.ids(ids, limit=MAX_BATCH_ROWS),
            attributes=attributes,
            schema=None if asked.schema is None else msgspec.to_builtins(asked.schema),
            mode=asked.mode,
            condition=condition,
            return_ids=asked.return_ids,
            expected=expected,
            idempotency_key=key,
        )
        body = wire.Inserted(
            part_id=done.part_id,
            n=done.n,
            epoch=done.epoch,
            upserted=done.upserted,
            inserted=done.inserted,
            skipped=done.skipped,
            ids=msgspec.UNSET if done.ids is None else done.ids.tolist(),
            affected_ids=_told(done.affected_ids),
        )
        return answer(body, 201, at=(done.incarnation, done.epoch))

    def delete(ns: str) -> Response:
        query()
        takes("If-Match", "Idempotency-Key")
        expected, key = if_match(), idempotency_key()
        asked = json_body(_delete, limit)
        ids, matching, condition = _taken(asked, "ids", "filter", "condition")
        done = backend.delete_rows(
            ns,
            wire.ids(ids, limit=MAX_DELETE_IDS),
            filter=matching,
            condition=condition,
            return_ids=asked.return_ids,
            expected=expected,
            idempotency_key=key,
        )
        body = wire.Deleted(
            deleted=done.deleted,
            skipped=done.skipped,
            epoch=done.epoch,
            affected_ids=_told(done.affected_ids),
        )
        return answer(body, at=(done.incarnation, done.epoch))

    def patch(ns: str) -> Response:
        query()
        takes("If-Match", "Idempotency-Key")
        expected, key = if_match(), idempotency_key()
        asked = json_body(_patch, limit)
        ids, attributes, matching, condition = _taken(asked, "ids", "attributes", "filter", "condition")
        done = backend.patch_rows(
            ns,
            wire.ids(ids, limit=MAX_PATCH_IDS),
            attributes,
            filter=matching,
            schema=None if asked.schema is None else msgspec.to_builtins(asked.schema),
            condition=condition,
            return_ids=asked.return_ids,
            expected=expected,
            idempotency_key=key,
        )
        body = wire.Patched(
            patched=done.patched,
            skipped=done.skipped,
            absent=done.absent,
            epoch=done.epoch,
            affected_ids=_told(done.affected_ids),
        )
        return answer(body, at=(done.incarnation, done.epoch))

    def read(ns: str, identity: str) -> Response:
        asked = query("include_vector", "epoch")
        wanted = flag(asked, "include_vector", True)
        row = _row(backend, ns, identity, wanted, past_epoch(asked))
        return answer(wire.row_view(row, with_vector=wanted), at=(row.incarnation, row.epoch))

    rule: Any = app.add_url_rule
    rule("/v1/namespaces/<ns>/parts", "insert", insert, methods=["POST"])
    rule("/v1/namespaces/<ns>/deletes", "delete_rows", delete, methods=["POST"])
    rule("/v1/namespaces/<ns>/patches", "patch_rows", patch, methods=["POST"])
    rule("/v1/namespaces/<ns>/rows/<any_text:identity>", "row", read, methods=["GET"])


def _taken(asked: msgspec.Struct, *fields: str) -> list[bytes | None]:
    """The JSON of some fields, for which the body need not be held any longer."""
    found = [wire.given_json(getattr(asked, field)) for field in fields]
    for field in fields:
        setattr(asked, field, msgspec.Raw())
    return found


def _told(ids: list[RowId] | None) -> list[RowId] | msgspec.UnsetType:
    return msgspec.UNSET if ids is None else ids


def batch(
    backend: Backend, ns: str, raw: msgspec.Raw, dim: int | None, *, limit: int, field: str = "vectors"
) -> F32:
    """f32[N, n]; base64 that does not say its dimension has the namespace's."""
    values = wire.vectors(raw, dim, limit=limit, field=field)
    if isinstance(values, bytes):
        return wire.cut(values, backend.info(ns).dim, field=field)
    wire.check_dim(dim, values.shape[1])
    return values


def _row(backend: Backend, ns: str, text: str, include_vector: bool, epoch: int | None) -> Row:
    """The row of an id in a path. Digits are a number where the namespace has numbers."""
    candidates: list[RowId] = [text]
    if _NUMBER.fullmatch(text) and int(text) <= MAX_U64:
        candidates.insert(0, int(text))
    try:
        return backend.row(ns, candidates[0], include_vector=include_vector, epoch=epoch)
    except InvalidId:
        if len(candidates) == 1:
            raise
    return backend.row(ns, candidates[1], include_vector=include_vector, epoch=epoch)
