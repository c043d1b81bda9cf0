"""Metadata of documents as attributes of rows, and back, identical.

Values that an attribute can hold are typed attributes, so that filters see them. What would not come back
the same from one, such as null, a nested object, or a value of another type than the attribute has, is
kept as JSON beside them, and wins when they are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Final, cast
from uuid import UUID

import numpy as np

from vecstore.errors import InvalidAttribute
from vecstore.limits import MAX_ARRAY_ELEMENTS, MAX_ATTRIBUTES, MAX_FILTERABLE_BYTES, MAX_VALUE_BYTES
from vecstore.rows.inference import is_list
from vecstore.rows.schema import check_name, element_type, is_array
from vecstore.rows.values import key_of, kind_of
from vecstore.types import AttributeType, ScalarType

REST: Final = "metadata_json"  # the attribute of what no other holds
TEXT: Final = {"type": "string", "filterable": False}
_EXACT: Final = 1 << 53  # integers up to here are floats as well

Schema = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Columns:
    """Attributes of some rows, and the types of those that the namespace does not know yet."""

    attributes: dict[str, list[Any]]
    schema: dict[str, Any]


def to_columns(metadatas: Sequence[Mapping[str, Any]], schema: Schema, taken: Iterable[str]) -> Columns:
    """The attributes that hold some metadata.

    Parameters
    ----------
    schema
        Of the namespace; a value that does not fit it is kept as JSON.
    taken
        Attributes that metadata may not have, because they hold something else.

    Raises
    ------
    InvalidAttribute
        A key that is no string, or a value that is neither JSON nor a date or a UUID.
    """
    taken = {*taken, REST}
    rests: list[dict[str, Any]] = [{} for _ in metadatas]
    attributes: dict[str, list[Any]] = {}
    new: dict[str, Any] = {}
    room = MAX_ATTRIBUTES - len({*schema, *taken})
    for key in dict.fromkeys(key for metadata in metadatas for key in metadata):
        given = [metadata.get(key) for metadata in metadatas]
        spec = schema.get(key)
        if spec is None and key not in taken and room > len(new) and _is_name(key):
            kind = _kind(given)
            if kind is not None:
                new[key] = spec = {"type": kind, "filterable": True}
        if spec is not None and key not in taken:
            fitting = [fits(value, spec) for value in given]
            attributes[key] = [value if fit else None for value, fit in zip(given, fitting, strict=True)]
        for metadata, rest in zip(metadatas, rests, strict=True):
            if key in metadata and not (spec and key not in taken and _comes_back(metadata[key], spec)):
                rest[key] = metadata[key]
    if any(rests):
        attributes[REST] = [_dumped(rest) if rest else None for rest in rests]
        if REST not in schema:
            new[REST] = TEXT
    return Columns(attributes, new)


def to_metadata(attributes: Mapping[str, Any], taken: Iterable[str]) -> dict[str, Any]:
    """The metadata that the attributes of a row hold."""
    taken = {*taken, REST}
    found = {key: value for key, value in attributes.items() if value is not None and key not in taken}
    rest = attributes.get(REST)
    return found if rest is None else found | _restored(json.loads(rest))


def fits(value: Any, spec: Mapping[str, Any]) -> bool:
    """Whether an attribute can hold a value."""
    kind: AttributeType = spec["type"]
    if not is_array(kind):
        return _fits_one(value, element_type(kind), spec)
    return (
        is_list(value)
        and len(value) <= MAX_ARRAY_ELEMENTS
        and all(_fits_one(one, element_type(kind), spec) for one in value)
    )


def _fits_one(value: Any, kind: ScalarType, spec: Mapping[str, Any]) -> bool:
    try:
        key = key_of(value, kind)
    except (ValueError, TypeError, OverflowError):
        return False
    if kind == "string":
        return len(cast(bytes, key)) <= (MAX_FILTERABLE_BYTES if spec["filterable"] else MAX_VALUE_BYTES)
    return kind != "float" or kind_of(value) == "float" or abs(value) <= _EXACT


def _comes_back(value: Any, spec: Mapping[str, Any]) -> bool:
    """Whether an attribute gives the very value that it is given."""
    if not fits(value, spec):
        return False
    kind = str(spec["type"]).removeprefix("[]")
    plain = {"string": str, "int": int, "uint": int, "float": float, "bool": bool}.get(kind)
    if is_list(value):
        return type(value) is list and all(type(one) is plain for one in value)
    return type(value) is plain


def _kind(values: list[Any]) -> str | None:
    """The type of a new attribute: that of the first value which has one; of mixed numbers, float."""
    kinds = [kind for kind in map(_kind_of_value, values) if kind is not None]
    if not kinds:
        return None
    array = "[]" if kinds[0].startswith("[]") else ""
    number = kinds[0] == f"{array}int" and f"{array}float" in kinds
    return f"{array}float" if number else kinds[0]


def _kind_of_value(value: Any) -> str | None:
    if not is_list(value):
        return kind_of(value)
    kinds = {kind_of(one) for one in value}
    if kinds == {"int", "float"}:
        kinds = {"float"}
    return f"[]{kinds.pop()}" if len(kinds) == 1 and None not in kinds else None


def _is_name(key: Any) -> bool:
    try:
        check_name(key, field="metadata")
    except InvalidAttribute:
        return False
    return True


# -- JSON ----------------------------------------------------------------------------------


def _dumped(rest: dict[str, Any]) -> str:
    for key, value in rest.items():
        try:
            if not isinstance(key, str):
                raise TypeError("keys are strings")
            json.dumps(_escaped(value), default=_tagged)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidAttribute(
                f"metadata {key!r} has no JSON form: {error}", field="metadata", attribute=str(key)
            ) from error
    return json.dumps(_escaped(rest), default=_tagged, ensure_ascii=False, separators=(",", ":"))


def _escaped(value: Any) -> Any:
    """An object that looks like one of our tags gets one itself."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("keys are strings")
        inner = {key: _escaped(one) for key, one in value.items()}
        return {"$object": inner} if len(inner) == 1 and next(iter(inner)) in _TAGS else inner
    if isinstance(value, (list, tuple)):
        return [_escaped(one) for one in value]
    return value


def _tagged(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, date):
        return {"$date": value.isoformat()}
    if isinstance(value, UUID):
        return {"$uuid": str(value)}
    if isinstance(value, np.datetime64) and isinstance(value.tolist(), int):  # so many nanoseconds
        value = value.astype("datetime64[us]")
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON")


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(one) for one in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value)) if len(value) == 1 else None
    if tag in _TAGS:
        if tag != "$object":
            return _TAGS[tag](value[tag])
        value = value[tag]
    return {key: _restored(one) for key, one in value.items()}


_TAGS: Final[dict[str, Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$uuid": UUID,
    "$object": dict,
}
