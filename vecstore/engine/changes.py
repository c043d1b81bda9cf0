"""What a write asks of a commit: inserts and deletes of rows, and a change of the schema.

Which rows there are to be replaced or deleted is asked anew at every attempt (`vecstore.engine.choice`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.engine.choice import Choice, Found
from vecstore.engine.schema import add_to, drop_from
from vecstore.errors import IdExists, VecstoreError
from vecstore.limits import MAX_RETURNED_IDS
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.lifecycle import change_settings, check_expiry
from vecstore.manifest.model import Mean, Part
from vecstore.rows.ids import Ids
from vecstore.rows.schema import Spec
from vecstore.types import RowId, WriteMode


@dataclass(kw_only=True, eq=False)
class InsertRows(Change):
    """Add an uploaded part; the older rows of its ids die in the same commit.

    Where there is a condition, rows of the part whose ids are there and do not meet it are dead from the
    start, and the older ones live on.

    Attributes
    ----------
    part
        The part's line, without ``id_base``.
    order
        i64[n]: which row of the batch each row of the part is.
    choice
        Of the rows that are replaced; None if the commit assigns the ids.
    columns, declared
        The attributes whose columns the part holds, in its order, and those that the caller declared besides.
    upload
        Uploads the part again under a new id and returns its new line (R3).
    passed_over
        i64: positions of the rows that were not written, as of the latest attempt.
    """

    part: Part
    order: npt.NDArray[np.int64]
    columns: Mapping[str, Spec] = field(default_factory=dict)
    declared: Mapping[str, Spec] = field(default_factory=dict)
    choice: Choice | None
    mode: WriteMode
    mean: Mean | None
    upload: Callable[[], Part]
    passed_over: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def apply(self, draft: Draft) -> dict[str, Any]:
        part, before = self.part, draft.mark()
        if self.mean is not None:
            draft.add_mean(self.mean)
        if self.columns or self.declared:
            ids_of = add_to(draft, {**self.declared, **self.columns}, field="attributes")
            if self.columns:
                part = replace(part, columns=tuple(ids_of[name] for name in self.columns))
        if self.choice is None:
            draft.set_id_kind("u64")
            part = replace(part, id_base=draft.take_ids(part.n))
            draft.add_part(part)
            return self._answer(part, 0)
        ids = self.choice.ids
        draft.set_id_kind(ids.kind)
        found = self.choice.find(draft)
        if self.mode == "insert":
            _refuse_existing(found, ids)
        self.passed_over = found.passed_over
        if len(self.passed_over) == part.n:
            draft.go_back(before)
            return self._answer(None, 0)
        kill(draft, found)
        if ids.kind == "u64":
            draft.raise_next_id(int(ids.values.max()))
        draft.add_part(part)
        unwritten = np.isin(self.order, self.passed_over)
        draft.kill(part.id, BitMap(np.flatnonzero(unwritten).tolist()))
        return self._answer(part, found.count)

    def written(self, assigned: npt.NDArray[np.uint64] | None) -> list[RowId]:
        """The ids of rows that the latest attempt wrote, at most `MAX_RETURNED_IDS`."""
        ids: npt.NDArray[Any] | None = assigned
        if ids is None:
            assert self.choice is not None  # or they would be assigned
            ids = np.delete(self.choice.ids.values, self.passed_over)
        found: list[RowId] = ids[:MAX_RETURNED_IDS].tolist()
        return found

    def _answer(self, part: Part | None, upserted: int) -> dict[str, Any]:
        skipped = len(self.passed_over)
        return {
            "part_id": None if part is None else part.id,
            "n": self.part.n - skipped,
            "upserted": upserted,
            "skipped": skipped,
            "id_base": None if part is None else part.id_base,
        }

    def oldest_upload(self) -> float | None:
        return self.part.began

    def upload_again(self) -> None:
        self.part = self.upload()


def _refuse_existing(found: Found, ids: Ids) -> None:
    if found.chosen:
        position = min(int(one.which.min()) for one in found.chosen)
        raise IdExists(
            f"ids[{position}]: id {ids.values.item(position)!r} exists",
            field="ids",
            position=position,
            existing=found.count,
        )


@dataclass(kw_only=True, eq=False)
class Refused(Change):
    """What is refused, unless it has been answered before under its idempotency key."""

    error: VecstoreError

    def apply(self, draft: Draft) -> dict[str, Any]:  # noqa: ARG002
        raise self.error


@dataclass(kw_only=True, eq=False)
class DeleteRows(Change):
    """Kill the live rows that are chosen when the commit is made; ids that are not there are no error.

    Attributes
    ----------
    return_ids
        Whether to tell which they were.
    affected
        Their ids as of the latest attempt, at most `MAX_RETURNED_IDS`.
    """

    choice: Choice
    return_ids: bool = False
    affected: list[RowId] | None = None

    def apply(self, draft: Draft) -> dict[str, Any]:
        found = self.choice.find(draft)
        if self.return_ids:
            self.affected = self.choice.ids_of(found, draft.manifest, MAX_RETURNED_IDS)
        kill(draft, found)
        return {"deleted": found.count, "skipped": len(found.passed_over)}


def kill(draft: Draft, found: Found) -> None:
    """Mark the rows that were chosen dead."""
    for one in found.chosen:
        draft.kill(one.part.id, BitMap(one.rows.tolist()))


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
        change_settings(draft, self.settings)
        drop_from(draft, {name for name, spec in self.changes.items() if spec is None}, field="schema")
        add_to(draft, {name: spec for name, spec in self.changes.items() if spec is not None}, field="schema")
        check_expiry(draft.manifest.settings, draft.manifest.attributes)
        return {}
