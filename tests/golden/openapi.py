"""Whether one OpenAPI document keeps what another one promised: the operations, fields and values of callers.

    python -m tests.golden.openapi

writes the document of the version at hand, which is right at a release that adds to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from vecstore.config import package_version

FOLDER = Path(__file__).parent
_METHODS = ("get", "post", "put", "patch", "delete")
_LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_UNIONS = ("anyOf", "oneOf")

Way = Literal["sent", "answered"]


def broken(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What a caller that was written for ``old`` would stumble over in ``new``."""
    return list(_Comparison(old, new).paths())


class _Comparison:
    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self._old = old
        self._new = new
        self._under_way: set[tuple[str, str, Way]] = set()

    def paths(self) -> Iterator[str]:
        for path, before in self._old["paths"].items():
            after = self._new["paths"].get(path, {})
            for method in _METHODS:
                if method in before:
                    at = f"{method.upper()} {path}"
                    if method not in after:
                        yield f"{at} is gone"
                        continue
                    yield from self._operation(at, before, after, before[method], after[method])

    def _operation(self, at: str, old_path: Any, new_path: Any, old: Any, new: Any) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{at}: operationId changed"
        before, after = _parameters(old_path, old), _parameters(new_path, new)
        for name, parameter in before.items():
            if name not in after:
                yield f"{at}: parameter {name} is gone"
                continue
            if after[name].get("required") and not parameter.get("required"):
                yield f"{at}: parameter {name} is required now"
            yield from self._schema(f"{at} {name}", parameter["schema"], after[name]["schema"], "sent")
        for name in after.keys() - before.keys():
            if after[name].get("required"):
                yield f"{at}: parameter {name} is new and required"
        body, new_body = old.get("requestBody"), new.get("requestBody")
        if new_body is not None and new_body.get("required") and not (body and body.get("required")):
            yield f"{at}: a body is required now"
        if body is not None:
            yield from self._content(f"{at} body", body, new_body or {}, "sent")
        for status, answer in old["responses"].items():
            if status not in new["responses"]:
                yield f"{at}: answer {status} is gone"
                continue
            found = new["responses"][status]
            for header in answer.get("headers", {}).keys() - found.get("headers", {}).keys():
                yield f"{at}: header {header} of {status} is gone"
            yield from self._content(f"{at} {status}", answer, found, "answered")

    def _content(self, at: str, old: Any, new: Any, way: Way) -> Iterator[str]:
        for kind, told in old.get("content", {}).items():
            found = new.get("content", {}).get(kind)
            if found is None:
                yield f"{at}: {kind} is gone"
            else:
                yield from self._schema(at, told.get("schema", {}), found.get("schema", {}), way)

    def _schema(self, at: str, old: Any, new: Any, way: Way) -> Iterator[str]:
        names = (old.get("$ref", ""), new.get("$ref", ""), way)
        if names[0] or names[1]:
            if names in self._under_way:  # a schema that holds itself
                return
            self._under_way.add(names)
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        if "type" in old and "type" in new:
            before, after = _set(old["type"]), _set(new["type"])
            if not (before <= after if way == "sent" else after <= before):
                yield f"{at}: type {sorted(before)} became {sorted(after)}"
        if "enum" in old and not set(map(str, old["enum"])) <= set(map(str, new.get("enum", old["enum"]))):
            yield f"{at}: values of {old['enum']} are gone"
        if way == "sent":
            yield from _tighter(at, old, new)
        before, after = set(old.get("required", ())), set(new.get("required", ()))
        for name in after - before if way == "sent" else before - after:
            yield f"{at}: field {name} is {'required now' if way == 'sent' else 'not always there any more'}"
        for name, field in old.get("properties", {}).items():
            found = new.get("properties", {}).get(name)
            if found is None:
                yield f"{at}: field {name} is gone"
            else:
                yield from self._schema(f"{at}.{name}", field, found, way)
        for inner in ("items", "additionalProperties"):
            if isinstance(old.get(inner), dict) and isinstance(new.get(inner), dict):
                yield from self._schema(f"{at}[]", old[inner], new[inner], way)
        for union in _UNIONS:
            for option in old.get(union, ()):
                others = [one for name in _UNIONS for one in new.get(name, ())] or [new]
                if not any(self._fits(option, other, way) for other in others):
                    yield f"{at}: an alternative is gone: {json.dumps(option)[:80]}"

    def _fits(self, option: Any, other: Any, way: Way) -> bool:
        fresh = _Comparison(self._old, self._new)
        fresh._under_way = set(self._under_way)
        if _resolved(self._old, option).get("type") != _resolved(self._new, other).get("type"):
            return False
        return not list(fresh._schema("", option, other, way))


def _tighter(at: str, old: Any, new: Any) -> Iterator[str]:
    for name in _LEAST:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{at}: {name} is {new[name]} now"
    for name in _MOST:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{at}: {name} is {new[name]} now"
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{at}: pattern changed"


def _parameters(path: Any, operation: Any) -> dict[str, Any]:
    told = [*path.get("parameters", ()), *operation.get("parameters", ())]
    return {f"{one['in']} {one['name']}": one for one in told}


def _resolved(document: dict[str, Any], schema: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _set(types: Any) -> set[str]:
    found = {types} if isinstance(types, str) else set(types)
    return found | {"integer"} if "number" in found else found


def golden(version: str) -> Path:
    return FOLDER / f"openapi-{version}.json"


if __name__ == "__main__":
    from vecstore.server.openapi import document

    golden(package_version()).write_text(json.dumps(document(), separators=(",", ":"), sort_keys=True) + "\n")
