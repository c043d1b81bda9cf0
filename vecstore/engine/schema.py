"""How the schema of a namespace changes: by the commit that needs it."""

from __future__ import annotations

from collections.abc import Mapping

from vecstore.errors import InvalidAttribute
from vecstore.limits import MAX_ATTRIBUTES
from vecstore.manifest.draft import Draft
from vecstore.manifest.model import Attribute
from vecstore.rows.schema import Spec, conflict


def add_to(draft: Draft, specs: Mapping[str, Spec], *, field: str) -> dict[str, int]:
    """Let the schema of a draft have these attributes; the id of each.

    Raises
    ------
    SchemaConflict
        One is there with another type, or as filterable as not (protocol R4: asked at every attempt).
    InvalidAttribute
        There would be more than `MAX_ATTRIBUTES`.
    """
    schema = dict(draft.manifest.attributes)
    following = draft.manifest.next_attribute
    upcoming = following if isinstance(following, int) else 0
    ids = {}
    for name, spec in specs.items():
        known = schema.get(name)
        if known is None:
            known = schema[name] = Attribute(upcoming, spec.type, spec.filterable)
            upcoming += 1
        elif (known.type, known.filterable) != (spec.type, spec.filterable):
            raise conflict(name, known, spec, field=field)
        ids[name] = known.id
    if len(schema) > MAX_ATTRIBUTES:
        raise InvalidAttribute(
            f"{field}: the schema would have {len(schema)} attributes; at most {MAX_ATTRIBUTES} are kept",
            field=field,
            limit=MAX_ATTRIBUTES,
        )
    if upcoming != following and len(schema) > len(draft.manifest.attributes):
        draft.replace(schema=schema, next_attribute=upcoming)
    return ids


def drop_from(draft: Draft, names: set[str], *, field: str) -> None:
    """Drop attributes; `InvalidAttribute` for one that is not there."""
    schema = dict(draft.manifest.attributes)
    for name in sorted(names):
        if schema.pop(name, None) is None:
            raise InvalidAttribute(
                f"{field}: there is no attribute {name!r} to drop", field=field, attribute=name
            )
    if names:
        draft.replace(schema=schema)
