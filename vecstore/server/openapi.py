"""``/openapi.json``, OpenAPI 3.1: schemas from the types that validate, paths written down here."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import msgspec

from vecstore.config import package_version
from vecstore.limits import MAX_IDEMPOTENCY_KEY_BYTES, MAX_NAME_BYTES, MAX_PAGE_SIZE
from vecstore.server import scans, wire, wire_aggregate, wire_queries
from vecstore.server.scopes import need
from vecstore.types import (
    CacheStats,
    CompactResult,
    NamespaceInfo,
    PartsReport,
    RecallEstimate,
    RecallReport,
    Tag,
    WarmResult,
)

_TYPES: Final[tuple[Any, ...]] = (
    wire.CreateNamespace,
    wire.UpdateNamespace,
    wire.InsertRows,
    wire.DeleteRows,
    wire.PatchRows,
    wire.Search,
    wire.SearchQuery,
    wire_aggregate.Aggregate,
    wire_aggregate.Aggregated,
    wire_queries.Queries,
    wire_queries.OneQuery,
    wire_queries.Answers,
    wire.MeasureRecall,
    wire.Restore,
    wire.CreateBranch,
    wire.CreateTag,
    wire.Tags,
    wire.Compact,
    wire.Warm,
    wire.NamespacePage,
    wire.Inserted,
    wire.Deleted,
    wire.Patched,
    wire.Found,
    wire.RowView,
    scans.ScanRows,
    scans.Scanned,
    wire.Health,
    wire.ErrorBody,
    NamespaceInfo,
    PartsReport,
    CacheStats,
    CompactResult,
    Tag,
    WarmResult,
    RecallReport,
    RecallEstimate,
)


@cache
def document() -> dict[str, Any]:
    """The description; made once a process."""
    _, schemas = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "vecstore",
            "version": package_version(),
            "description": "Vector search whose only durable state is object storage.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _with_row_scan(_secured(_paths())),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key; not asked for where a server has no ``keys_file``.",
                }
            },
        },
    }


def _paths() -> dict[str, Any]:
    ns = _parameter(
        "ns",
        "path",
        {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*$", "maxLength": MAX_NAME_BYTES},
        required=True,
    )
    etag = '"[0-9A-Za-z_]{1,64}-[0-9]{1,19}"'
    match = _parameter("If-Match", "header", {"type": "string", "pattern": rf"^(\*|{etag})$"})
    seen = _parameter("If-Match", "header", {"type": "string", "pattern": f"^{etag}$"}, required=True)
    key = _parameter(
        "Idempotency-Key",
        "header",
        {"type": "string", "pattern": f"^[ -~]{{1,{MAX_IDEMPOTENCY_KEY_BYTES}}}$"},
    )
    epoch = _parameter("epoch", "query", {"type": "integer", "minimum": 1}, "a past epoch that is kept")
    one = "/v1/namespaces/{ns}"
    return {
        "/v1/namespaces": {
            "get": _operation(
                "listNamespaces",
                "List namespaces by name",
                {"200": _json("NamespacePage")},
                parameters=[
                    _parameter("prefix", "query", {"type": "string"}),
                    _parameter(
                        "page_size",
                        "query",
                        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": 100},
                    ),
                    _parameter("cursor", "query", {"type": "string"}, "``next_cursor`` of the page before"),
                ],
            ),
            "post": _operation(
                "createNamespace",
                "Create a namespace",
                {"201": _json("NamespaceInfo", etag=True)},
                body="CreateNamespace",
            ),
        },
        one: {
            "parameters": [ns],
            "get": _operation(
                "showNamespace", "What a namespace is and holds", {"200": _json("NamespaceInfo", etag=True)}
            ),
            "patch": _operation(
                "updateNamespace",
                "Change defaults",
                {"200": _json("NamespaceInfo", etag=True)},
                body="UpdateNamespace",
                parameters=[match],
            ),
            "delete": _operation(
                "deleteNamespace",
                "Delete a namespace and all its rows",
                {"204": {"description": "deleted"}},
                parameters=[match],
            ),
        },
        f"{one}/parts": {
            "parameters": [ns],
            "get": _operation(
                "listParts",
                "The parts of an epoch, and of the current one what compaction does and would do",
                {"200": _json("PartsReport", etag=True)},
                parameters=[epoch],
            ),
            "post": _operation(
                "insertRows",
                "Insert or upsert a batch, on a condition if one is given",
                {"201": _json("Inserted", etag=True)},
                body="InsertRows",
                parameters=[match, key],
            ),
        },
        f"{one}/deletes": {
            "parameters": [ns],
            "post": _operation(
                "deleteRows",
                "Delete rows by id or by filter",
                {"200": _json("Deleted", etag=True)},
                body="DeleteRows",
                parameters=[match, key],
            ),
        },
        f"{one}/patches": {
            "parameters": [ns],
            "post": _operation(
                "patchRows",
                "Give rows other attributes, by id or by filter",
                {"200": _json("Patched", etag=True)},
                body="PatchRows",
                parameters=[match, key],
            ),
        },
        f"{one}/search": {
            "parameters": [ns],
            "post": _operation(
                "search", "Search one query or a batch", {"200": _json("Found", etag=True)}, body="Search"
            ),
            "get": _operation(
                "searchByGet",
                "Search one query",
                {"200": _json("Found", etag=True)},
                parameters=_search_parameters(),
            ),
        },
        f"{one}/aggregate": {
            "parameters": [ns],
            "post": _operation(
                "aggregate",
                "Counts, sums, extremes and means of rows by groups",
                {"200": _json("Aggregated", etag=True)},
                body="Aggregate",
            ),
        },
        f"{one}/queries": {
            "parameters": [ns],
            "post": _operation(
                "multiQuery",
                "Several searches and aggregations, answered from one epoch",
                {"200": _json("Answers", etag=True)},
                body="Queries",
            ),
        },
        f"{one}/recall": {
            "parameters": [ns],
            "post": _operation(
                "measureRecall",
                "Measure recall against exact search",
                {"200": _json("RecallReport", etag=True)},
                body="MeasureRecall",
                body_required=False,
            ),
            "get": _operation(
                "recallEstimate",
                "Recall of live searches that the answering process has sampled",
                {"200": _json("RecallEstimate")},
            ),
        },
        f"{one}/rows/{{id}}": {
            "parameters": [ns, _parameter("id", "path", {"type": "string", "minLength": 1}, required=True)],
            "get": _operation(
                "readRow",
                "Read the live row of an id",
                {"200": _json("RowView", etag=True)},
                parameters=[
                    _parameter("include_vector", "query", {"type": "boolean", "default": True}),
                    epoch,
                ],
            ),
        },
        f"{one}/rows/scan": {
            "parameters": [ns],
            "post": _operation(
                "scanRows",
                "One page of the live rows of an epoch",
                {"200": _json("Scanned", etag=True)},
                body="ScanRows",
                body_required=False,
            ),
        },
        f"{one}/manifest": {
            "parameters": [ns],
            "get": _operation(
                "readManifest",
                "The manifest of the current or of a past epoch",
                {"200": {**_content({"type": "object"}), "headers": _etag_header()}},
                parameters=[epoch],
            ),
        },
        f"{one}/restore": {
            "parameters": [ns],
            "post": _operation(
                "restore",
                "Make a past epoch current again",
                {"200": _json("NamespaceInfo", etag=True)},
                body="Restore",
                parameters=[seen],
            ),
        },
        f"{one}/branches": {
            "parameters": [ns],
            "post": _operation(
                "createBranch",
                "Make a namespace from an epoch of this one, sharing its parts",
                {"201": _json("NamespaceInfo", etag=True)},
                body="CreateBranch",
            ),
        },
        f"{one}/tags": {
            "parameters": [ns],
            "get": _operation("listTags", "The tags of a namespace by name", {"200": _json("Tags")}),
            "post": _operation(
                "createTag", "Hold an epoch against collection", {"201": _json("Tag")}, body="CreateTag"
            ),
        },
        f"{one}/tags/{{tag}}": {
            "parameters": [ns, {**ns, "name": "tag"}],
            "delete": _operation("deleteTag", "Delete a tag", {"204": {"description": "deleted"}}),
        },
        f"{one}/compact": {
            "parameters": [ns],
            "post": _operation(
                "compact",
                "Merge parts and retrain",
                {"200": _json("CompactResult")},
                body="Compact",
                body_required=False,
            ),
        },
        f"{one}/warm": {
            "parameters": [ns],
            "post": _operation(
                "warm",
                "Read a slice of what searches need into the caches",
                {"200": _json("WarmResult")},
                body="Warm",
                body_required=False,
            ),
        },
        "/v1/caches": {
            "get": _operation(
                "cacheStats",
                "What the caches of the answering process have done and hold",
                {"200": _json("CacheStats")},
            )
        },
        "/healthz": {"get": _operation("healthz", "The server answers", {"200": _json("Health")})},
        "/readyz": {"get": _operation("readyz", "The store answers too", {"200": _json("Health")})},
        "/openapi.json": {
            "get": _operation("openapi", "This document", {"200": _content({"type": "object"})})
        },
        "/docs": {"get": _operation("docs", "This document for people", {"200": _page()})},
    }


def _secured(paths: dict[str, Any]) -> dict[str, Any]:
    """With what each operation asks of a key, and what is answered where that is missing."""
    for path, item in paths.items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            asked = need(method.upper(), path)
            operation["security"] = [{"key": [scope]} for scope in asked.scopes]
            if asked.scopes:
                operation["responses"] |= {
                    "401": _refused("no key, or one that is not known", "WWW-Authenticate"),
                    "403": _refused("the key lacks the scope"),
                    "429": _refused("too many requests", "Retry-After"),
                }
    return paths


def _with_row_scan(paths: dict[str, Any]) -> dict[str, Any]:
    """With the row whose id is "scan": its path is that of scans, and ``Allow`` says so."""
    rows = "/v1/namespaces/{ns}/rows"
    row = paths[f"{rows}/{{id}}"]["get"]
    paths[f"{rows}/scan"]["get"] = {**row, "operationId": "readRowScan", "summary": 'Read the row "scan"'}
    return paths


def _search_parameters() -> list[dict[str, Any]]:
    (_,), schemas = msgspec.json.schema_components([wire.SearchQuery], ref_template="{name}")
    fields = schemas["SearchQuery"]["properties"]
    out = []
    for name, schema in fields.items():
        plain = next((s for s in schema.get("anyOf", []) if s != {"type": "null"}), schema)
        plain = {key: value for key, value in plain.items() if value is not None}
        text = {"vector": "base64 of little-endian float32, also URL-safe, or a JSON array"}.get(name, "")
        parameter = _parameter(name, "query", plain, text, required=name == "vector")
        if name in ("include", "exclude"):
            parameter |= {"style": "form", "explode": False}
        out.append(parameter)
    return out


def _operation(
    name: str,
    summary: str,
    answers: dict[str, Any],
    *,
    body: str | None = None,
    body_required: bool = True,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {**answers, "default": _json("ErrorBody")},
    }
    if parameters:
        found["parameters"] = parameters
    if body is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
        found["requestBody"] = {"required": body_required, "content": content}
    return found


def _parameter(
    name: str, place: str, schema: dict[str, Any], description: str = "", *, required: bool = False
) -> dict[str, Any]:
    found = {"name": name, "in": place, "required": required, "schema": schema}
    return {**found, "description": description} if description else found


def _json(schema: str, *, etag: bool = False) -> dict[str, Any]:
    found = _content({"$ref": f"#/components/schemas/{schema}"}, schema)
    return {**found, "headers": _etag_header()} if etag else found


def _refused(why: str, header: str | None = None) -> dict[str, Any]:
    found = {**_json("ErrorBody"), "description": why}
    if header is None:
        return found
    return {**found, "headers": {header: {"required": True, "schema": {"type": "string"}}}}


def _content(schema: dict[str, Any], description: str = "JSON") -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _page() -> dict[str, Any]:
    return {"description": "a page", "content": {"text/html": {"schema": {"type": "string"}}}}


def _etag_header() -> dict[str, Any]:
    return {
        "ETag": {
            "description": "incarnation and epoch of the namespace",
            "required": True,
            "schema": {"type": "string"},
        }
    }
