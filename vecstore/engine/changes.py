"""What a write asks of a commit: inserts and deletes as changes that resolve ids at every attempt.

A part never changes, so where an id lies in it is found once; which of those rows are alive is
asked anew of each draft (protocol R5, R6). Where ids are assigned, the same rows have other ids at
an attempt that gives the part another base (R11).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.errors import IdExists, InvalidId, VecstoreError
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.lifecycle import check_expiry, updated_settings
from vecstore.manifest.model import Manifest, Mean, Part
from vecstore.part.reader import PartReader
from vecstore.part.rows import PartRows
from vecstore.rows.filters import Expression, bind, evaluate
from vecstore.rows.ids import Ids
from vecstore.rows.schema import Spec, add_to, drop_from
from vecstore.storage.cache import ReadTrace
from vecstore.types import WriteMode

Readers = Callable[[Manifest, Part], PartReader]


class Resolver:
    """Where given ids lie in parts; remembers each part it has looked into."""

    def __init__(self, ids: Ids, readers: Readers) -> None:
        self.ids = ids
        self._readers = readers
        self._found: dict[tuple[str, int | None], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = {}

    def look_ahead(self, manifest: Manifest, executor: Executor) -> None:
        """Look into all parts of a manifest side by side.

        A commit looks into what is new to it, part by part, while others wait for their turn; this
        is for the caller to do before it joins them.
        """
        if len(manifest.parts) == 1:
            self._find(manifest, manifest.parts[0])
        else:
            list(executor.map(lambda part: self._find(manifest, part), manifest.parts))

    def _find(self, manifest: Manifest, part: Part) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        name = part.id, part.id_base
        found = self._found.get(name)
        if found is None:
            found = self._found[name] = self._readers(manifest, part).find(self.ids, ReadTrace())
        return found

    def live(self, draft: Draft, part: Part) -> tuple[npt.NDArray[np.int64], BitMap]:
        """Positions in ``ids`` and rows of the part that are alive in the draft."""
        which, rows = self._find(draft.manifest, part)  # the base may not know the kind of ids yet
        if not len(rows):
            return which, BitMap()
        dead = draft.dead(part.id)
        alive = np.fromiter((row not in dead for row in rows.tolist()), dtype=np.bool_, count=len(rows))
        return which[alive], BitMap(rows[alive].tolist())

    def kill(self, draft: Draft) -> int:
        """Kill every live row of the ids in the draft; how many there were."""
        killed = 0
        for part in draft.manifest.parts:
            _, rows = self.live(draft, part)
            killed += draft.kill(part.id, rows)
        return killed


def check_id_kind(manifest: Manifest, ids: Ids, *, field: str = "ids") -> None:
    """`InvalidId` if a namespace that has ids has them of the other kind."""
    if manifest.id_kind is not None and manifest.id_kind != ids.kind:
        raise InvalidId(
            f"{field} of namespace {manifest.namespace!r} are {manifest.id_kind}, not {ids.kind}",
            field=field,
            kind=manifest.id_kind,
        )


@dataclass(kw_only=True, eq=False)
class InsertRows(Change):
    """Add an uploaded part; the older rows of its ids die in the same commit.

    Attributes
    ----------
    part
        The part's line, without ``id_base``.
    resolver
        Of the rows' ids, or None if the commit assigns them.
    columns, declared
        The attributes whose columns the part holds, in its order, and those that the caller declared besides.
    upload
        Uploads the part again under a new id and returns its new line (R3).
    """

    part: Part
    columns: Mapping[str, Spec] = field(default_factory=dict)
    declared: Mapping[str, Spec] = field(default_factory=dict)
    resolver: Resolver | None
    mode: WriteMode
    mean: Mean | None
    upload: Callable[[], Part]

    def apply(self, draft: Draft) -> dict[str, Any]:
        part, upserted = self.part, 0
        if self.mean is not None:
            draft.add_mean(self.mean)
        if self.columns or self.declared:
            ids_of = add_to(draft, {**self.declared, **self.columns}, field="attributes")
            if self.columns:
                part = replace(part, columns=tuple(ids_of[name] for name in self.columns))
        if self.resolver is None:
            draft.set_id_kind("u64")
            part = replace(part, id_base=draft.take_ids(part.n))
        else:
            ids = self.resolver.ids
            draft.set_id_kind(ids.kind)
            if self.mode == "insert":
                self._refuse_existing(draft, self.resolver)
            else:
                upserted = self.resolver.kill(draft)
            if ids.kind == "u64":
                draft.raise_next_id(int(ids.values.max()))
        draft.add_part(part)
        return {"part_id": part.id, "n": part.n, "upserted": upserted, "id_base": part.id_base}

    def _refuse_existing(self, draft: Draft, resolver: Resolver) -> None:
        for part in draft.manifest.parts:
            which, _ = resolver.live(draft, part)
            if len(which):
                position = int(which[0])
                raise IdExists(
                    f"ids[{position}]: id {resolver.ids.values[position]!r} exists",
                    field="ids",
                    position=position,
                    existing=len(which),
                )

    def oldest_upload(self) -> float | None:
        return self.part.began

    def upload_again(self) -> None:
        self.part = self.upload()


@dataclass(kw_only=True, eq=False)
class Refused(Change):
    """What is refused, unless it has been answered before under its idempotency key."""

    error: VecstoreError

    def apply(self, draft: Draft) -> dict[str, Any]:  # noqa: ARG002
        raise self.error


@dataclass(kw_only=True, eq=False)
class DeleteRows(Change):
    """Kill the live rows of ids; ids that are not there are no error."""

    resolver: Resolver

    def apply(self, draft: Draft) -> dict[str, Any]:
        check_id_kind(draft.manifest, self.resolver.ids)
        return {"deleted": self.resolver.kill(draft)}


@dataclass(kw_only=True, eq=False)
class DeleteMatching(Change):
    """Kill the live rows that a filter matches, under the schema of the base that is extended."""

    expression: Expression
    readers: Readers

    def apply(self, draft: Draft) -> dict[str, Any]:
        manifest = draft.manifest
        bound = bind(self.expression, manifest.attributes, manifest.id_kind)
        killed = 0
        for part in manifest.parts:
            rows = evaluate(bound, PartRows(self.readers(manifest, part), ReadTrace()))
            killed += draft.kill(part.id, rows)
        return {"deleted": killed}


@dataclass(kw_only=True, eq=False)
class UpdateSchema(Change):
    """Change settings and attributes together; what a change does not name stays as it is at the base.

    Attributes
    ----------
    changes
        Attributes to add, or as they have to be already; None drops one.
    """

    settings: Mapping[str, Any]
    changes: Mapping[str, Spec | None]

    def apply(self, draft: Draft) -> dict[str, Any]:
        draft.set_settings(updated_settings(draft.manifest.settings, self.settings))
        drop_from(draft, {name for name, spec in self.changes.items() if spec is None}, field="schema")
        add_to(draft, {name: spec for name, spec in self.changes.items() if spec is not None}, field="schema")
        check_expiry(draft.manifest.settings, draft.manifest.attributes)
        return {}
