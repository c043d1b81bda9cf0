"""The schema of a namespace: which attributes its rows may have, and of which type.

The schema lies in the manifest. Imports errors, limits, types and the model of the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from vecstore.errors import InvalidAttribute, SchemaConflict
from vecstore.limits import MAX_ATTRIBUTE_NAME_BYTES, MAX_ATTRIBUTES
from vecstore.manifest.model import Attribute
from vecstore.types import AttributeType, ScalarType

RESERVED: Final = frozenset({"id", "vector", "distance"})
TYPES: Final[tuple[str, ...]] = get_args(AttributeType)


@dataclass(frozen=True, slots=True)
class Spec:
    """What a caller says of an attribute."""

    type: AttributeType
    filterable: bool = True


def element_type(kind: AttributeType) -> ScalarType:
    """The type of an array's elements; of any other, the type itself."""
    return cast(ScalarType, kind.removeprefix("[]"))


def is_array(kind: AttributeType) -> bool:
    return kind.startswith("[]")


def check_name(name: object, *, field: str) -> str:
    """The name of an attribute: 1 to 128 bytes of printable UTF-8, not ``id``, ``vector`` or ``distance``."""
    problem = None
    if not isinstance(name, str) or not name or not name.isprintable():
        problem = "must be a name of printable characters"
    elif len(name.encode(errors="replace")) > MAX_ATTRIBUTE_NAME_BYTES:
        problem = f"must have at most {MAX_ATTRIBUTE_NAME_BYTES} bytes"
    elif name in RESERVED or name.startswith("$"):
        problem = "is a reserved name"
    if problem is not None:
        limit = {"limit": MAX_ATTRIBUTE_NAME_BYTES} if "bytes" in problem else {}
        raise InvalidAttribute(
            f"{field}: attribute {name!r} {problem}", field=field, attribute=str(name), **limit
        )
    return str.__str__(cast(str, name))


def parse_schema(given: object, *, field: str = "schema", drop: bool = False) -> dict[str, Spec | None]:
    """``{name: type}`` or ``{name: {"type": …, "filterable": …}}``; with ``drop``, null drops an attribute.

    Raises
    ------
    InvalidAttribute
        Naming the attribute.
    """
    if not isinstance(given, Mapping):
        raise InvalidAttribute(f"{field} must be an object of attributes and their types", field=field)
    if len(given) > MAX_ATTRIBUTES:
        raise InvalidAttribute(
            f"{field} must have at most {MAX_ATTRIBUTES} attributes", field=field, limit=MAX_ATTRIBUTES
        )
    found: dict[str, Spec | None] = {}
    for name, spec in given.items():
        name = check_name(name, field=field)
        found[name] = None if spec is None and drop else _spec(name, spec, field)
    return found


def declared(given: object, *, field: str = "schema") -> dict[str, Spec]:
    """As `parse_schema`, of a write, which drops nothing."""
    if given is None:
        return {}
    return {name: spec for name, spec in parse_schema(given, field=field).items() if spec is not None}


def as_schema(given: object, *, drop: bool = False) -> dict[str, Any]:
    """A schema, checked, as it crosses a wire."""
    return {
        name: None if spec is None else {"type": spec.type, "filterable": spec.filterable}
        for name, spec in parse_schema(given, drop=drop).items()
    }


def _spec(name: str, given: Any, field: str) -> Spec:
    if isinstance(given, Spec):
        return given
    if isinstance(given, str):
        given = {"type": given}
    if not isinstance(given, Mapping) or not {"type"} <= set(given) <= {"type", "filterable"}:
        raise InvalidAttribute(
            f'{field}: attribute {name!r} needs a type, or {{"type": …, "filterable": …}}',
            field=field,
            attribute=name,
        )
    kind, filterable = given["type"], given.get("filterable", True)
    if kind not in TYPES:
        raise InvalidAttribute(
            f"{field}: attribute {name!r} has the type {kind!r}, which is none of {', '.join(TYPES)}",
            field=field,
            attribute=name,
            limit=list(TYPES),
        )
    if not isinstance(filterable, bool):
        raise InvalidAttribute(
            f"{field}: filterable of attribute {name!r} must be true or false", field=field, attribute=name
        )
    return Spec(cast(AttributeType, str.__str__(kind)), filterable)


def conflict(name: str, known: Attribute, spec: Spec, *, field: str) -> SchemaConflict:
    """That an attribute is known otherwise."""
    if spec.type != known.type:
        why = f"is {known.type}, not {spec.type}"
    elif known.filterable:
        why = "is filterable, and cannot become one that is not"
    else:
        why = "is not filterable, and cannot become so"
    return SchemaConflict(
        f"{field}: attribute {name!r} {why}",
        field=field,
        attribute=name,
        type=known.type,
        filterable=known.filterable,
    )
