"""Planted bugs: each switches off one rule of the protocol, and the simulation must find it.

A bug is a replacement of one function of the library, such as somebody might have written. Nothing that
checks knows of it. ``setup`` makes the run one in which what the rule guards against is common enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from msgspec.structs import replace
from pyroaring import BitMap

from tests.simulation import schedules
from tests.simulation.world import Setup, World
from vecstore.engine.changes import InsertRows
from vecstore.engine.choice import Choice, Chosen, Found
from vecstore.engine.database import EmbeddedDatabase
from vecstore.engine.patches import Copies
from vecstore.errors import StorageMissing
from vecstore.maintenance import branches, gc
from vecstore.maintenance.compactor import SourceGone, SwapParts
from vecstore.manifest import attempt, history, snapshot
from vecstore.manifest.adopt import Reserve
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.keys import current_key, part_key
from vecstore.manifest.model import Manifest
from vecstore.manifest.pins import PinForBranch
from vecstore.manifest.publish import Publisher
from vecstore.manifest.restore import Restore
from vecstore.manifest.snapshot import SnapshotSource
from vecstore.manifest.switch import Switcher
from vecstore.storage.memory import MemoryStore

_check_base = attempt._check_base
_put_beside = Publisher._put_beside
_commit = Publisher.commit
_insert_apply = InsertRows.apply
_swap_apply = SwapParts.apply
_find = Choice.find
_copies_of = Copies.of
_restore_apply = Restore.apply
_make = MemoryStore._make


@dataclass(frozen=True)
class Rule:
    """One bug.

    Attributes
    ----------
    bug
        What the library does wrong, in one sentence.
    patches
        Owner, name and replacement of what is patched.
    setup
        Of runs that look for it.
    play
        A directed schedule, where chance is too thin.
    seed
        The first one that found it when it was planted.
    """

    bug: str
    patches: tuple[tuple[Any, str, Any], ...]
    setup: Callable[[Setup], Setup] = lambda setup: setup
    play: Callable[[World], None] | None = None
    seed: int = 1

    @contextmanager
    def off(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, replacement in self.patches:
                stack.enter_context(patch.object(owner, name, replacement))
            yield


def kind(
    make: Callable[..., Setup],
    *,
    crew: dict[str, int] | None = None,
    written: tuple[str, ...] | None = None,
    **chances: float,
) -> Callable[[Setup], Setup]:
    """Setups of one kind, with some clients, namespaces and chances of their own."""

    def made(setup: Setup) -> Setup:
        climate = dataclasses.replace(setup.climate, **chances)
        found = make(
            seed=setup.seed, steps=setup.steps, grace=setup.grace, retention=setup.retention, climate=climate
        )
        crews = tuple((dict(found.crew) | (crew or {})).items())
        return dataclasses.replace(found, crew=crews, written=written or found.written)

    return made


# -- R1: what became of a commit ------------------------------------------------------------


def _never_ask(self: Switcher, switch: Any, give_up: float, cause: Exception) -> bool:
    return False


# -- R2: history and uploads ----------------------------------------------------------------


def _keep_what_is_proposed(self: Publisher, switch: Any) -> None:
    _put_beside(self, switch)
    history.write_copy(self.store, self.namespace, switch.manifest.epoch, switch.data)


def _clean_up(self: Publisher, change: Change, arrival: object = None) -> Any:
    try:
        return _commit(self, change, arrival)
    except Exception:
        if isinstance(change, InsertRows):
            self.store.delete(part_key(self.namespace, change.part.id))
        raise


# -- R3: the barrier ------------------------------------------------------------------------


def _trust_uploads(draft: Draft, change: Change) -> None: ...


def _no_barrier(self: Any) -> Iterator[Manifest]:
    self._barrier = self._publisher.snapshots.refresh()
    yield from self._read(range(self._base.epoch + 1, self._barrier.epoch))
    yield self._barrier.manifest


def _reserve_nothing(self: Reserve, draft: Draft) -> dict[str, Any]:
    draft.replace(history_floor=draft.manifest.history_floor)
    return {}


# -- R4: incarnations -----------------------------------------------------------------------


def _remove_current(self: EmbeddedDatabase, name: str, **_: Any) -> None:
    self.namespace(name).snapshots.strong()
    self.store.delete(current_key(name))


def _any_incarnation(draft: Draft, change: Change) -> None:
    _check_base(draft, dataclasses.replace(change, incarnation=None))


# -- R5, R6, R11: what is done anew at every attempt, in sequence ---------------------------


def _find_in_base(self: Choice, draft: Draft) -> Found:
    found, base = _find(self, draft), {part.id for part in draft.base.parts}
    return Found([one for one in found.chosen if one.part.id in base], found.passed_over)


def _carry_over_once(self: SwapParts, draft: Draft) -> dict[str, Any]:
    there = [source.id for source, _, _ in self.sources if draft.part(source.id) is not None]
    first = self.__dict__.setdefault("_first", {i: draft.dead(i).copy() for i in there})
    draft.dead = lambda part_id: first[part_id] if part_id in first else Draft.dead(draft, part_id)  # type: ignore[method-assign]
    try:
        return _swap_apply(self, draft)
    finally:
        del draft.dead


def _take_ids_once(self: InsertRows, draft: Draft) -> dict[str, Any]:
    def take(n: int) -> int:
        first: int = self.__dict__.setdefault("_first", draft.manifest.next_id)
        draft.raise_next_id(first + n - 1)
        return first

    draft.take_ids = take  # type: ignore[method-assign]
    try:
        return _insert_apply(self, draft)
    finally:
        del draft.take_ids


# -- R7: what depends on rows that are there ------------------------------------------------


def _copy_once(self: Copies, manifest: Manifest, chosen: Sequence[Chosen]) -> Any:
    made = self._made
    return [(copy, BitMap()) for copy in made] if made else _copies_of(self, manifest, chosen)


def _ask_once(self: Choice, draft: Draft) -> Found:
    found = _find(self, draft)
    if self.resolver is None or self._expression is None:
        return found
    failed = self.__dict__.setdefault("_failed", found.passed_over)
    expression, self._expression = self._expression, None
    try:
        every = _find(self, draft).chosen
    finally:
        self._expression = expression
    chosen = [one.where(~np.isin(one.which, failed)) for one in every]
    there = np.concatenate([one.which for one in every] or [failed[:0]])
    return Found([one for one in chosen if len(one)], np.intersect1d(failed, there))


# -- R8, R9: restore and branches -----------------------------------------------------------


def _any_lineage(self: SwapParts, draft: Draft) -> dict[str, Any]:
    self.lineage = draft.manifest.lineage
    return _swap_apply(self, draft)


def _same_lineage(self: Restore, draft: Draft) -> dict[str, Any]:
    self.lineage = draft.manifest.lineage
    return _restore_apply(self, draft)


def _no_pin(self: PinForBranch, draft: Draft) -> dict[str, Any]:
    return {}


def _no_fence(target: Publisher, pin: Any, like: Manifest) -> bool:
    return True


# -- R10, R12: ages and keys ----------------------------------------------------------------


def _age_since_made(self: Any, epoch: int) -> float:
    try:
        return history.read_copy(self._store, self._namespace, epoch).manifest.committed_at
    except StorageMissing:
        return float("-inf")


def _no_record(draft: Draft, change: Change) -> None:
    return None


# -- R13: whose object it is ----------------------------------------------------------------


def _believe(data: bytes, *, key: str, namespace: str) -> Manifest:
    envelope = msgspec.json.decode(data)
    return replace(msgspec.convert(envelope["manifest"], Manifest), namespace=namespace)


# -- R14, R15: what is read -----------------------------------------------------------------


def _settle_on_anything(self: SnapshotSource, found: Any, sent_at: float, *, nothing_since: bool) -> None:
    if found is not None:
        self._adopt(found, sent_at)
    else:
        self._state = (self._state[0], max(self._state[1], sent_at))


def _observe_anything(self: SnapshotSource, found: Any) -> None:
    with self._mutex:
        self._adopt(found, found.read_at)


def _look_once(store: Any, namespace: str, epoch: int) -> history.Epoch:
    try:
        return history.read_copy(store, namespace, epoch)
    except StorageMissing as error:
        current = history.read_current(store, namespace)
        if current.manifest.epoch != epoch:
            raise history.expired(namespace, epoch) from error
        return current


# -- R16, R17 -------------------------------------------------------------------------------


def _give_up(self: SwapParts, draft: Draft) -> dict[str, Any]:
    if self.__dict__.setdefault("_first", draft.base.epoch) != draft.base.epoch:
        raise SourceGone("another commit came first")
    return _swap_apply(self, draft)


def _etag_of_time(self: MemoryStore, key: str, data: bytes) -> Any:
    made = _make(self, key, data)
    made.meta = dataclasses.replace(made.meta, etag=f"{int(made.meta.modified)}")
    return made


_crowded = kind(Setup.crowded)
_restless = kind(Setup.restless, pause=0.01)
_stalling = kind(Setup.crowded, pause=0.02, hang=0.01)

RULES: dict[str, Rule] = {
    "R1": Rule(
        "a switch whose answer was lost counts as lost itself",
        ((Switcher, "_what_became_of", _never_ask),),
        seed=2,
    ),
    "R2": Rule(
        "the bytes of an epoch become history before it was committed",
        ((Publisher, "_put_beside", _keep_what_is_proposed),),
    ),
    "R2-cleanup": Rule(
        "a writer whose commit failed deletes what it uploaded",
        ((Publisher, "commit", _clean_up),),
        play=schedules.in_doubt_until_the_deadline,
    ),
    "R2-copy": Rule(
        "a copy between stores writes epochs of tags under numbers that will be committed",
        ((Reserve, "apply", _reserve_nothing),),
        kind(Setup.copied),
    ),
    "R3": Rule(
        "an upload from before the barrier is committed as it is",
        ((attempt, "_check_uploads", _trust_uploads),),
        play=schedules.slept_through_collection,
    ),
    "R3-barrier": Rule(
        "collection deletes without a barrier",
        ((gc._Collection, "_readable_since_base", _no_barrier),),
        _stalling,
    ),
    "R4": Rule(
        "a deletion removes current", ((EmbeddedDatabase, "delete", _remove_current),), kind(Setup.restless)
    ),
    "R4-incarnation": Rule(
        "what was prepared for one incarnation is applied to the next",
        ((attempt, "_check_base", _any_incarnation),),
        _restless,
    ),
    "R5": Rule(
        "ids are resolved against the base alone, not against the group",
        ((Choice, "find", _find_in_base),),
        _crowded,
    ),
    "R6": Rule(
        "a compaction carries over what had died at its first attempt",
        ((SwapParts, "apply", _carry_over_once),),
        _crowded,
    ),
    "R7": Rule(
        "a patch writes the copies that it made at its first attempt",
        ((Copies, "of", _copy_once),),
        _crowded,
    ),
    "R7-condition": Rule(
        "a condition is asked at the first attempt alone",
        ((Choice, "find", _ask_once),),
        _crowded,
    ),
    "R8": Rule(
        "a compaction does not notice that the namespace was restored",
        ((SwapParts, "apply", _any_lineage),),
        play=schedules.restored_while_it_is_compacted,
    ),
    "R8-lineage": Rule(
        "a restore goes on with the lineage",
        ((Restore, "apply", _same_lineage),),
        _crowded,
        seed=2,
    ),
    "R9": Rule(
        "a branch names objects of another namespace without a pin",
        ((PinForBranch, "apply", _no_pin),),
        kind(Setup.branching),
    ),
    "R9-release": Rule(
        "the pin of a branch that is not there is released without a fence",
        ((branches, "fence", _no_fence),),
        play=schedules.branched_too_late,
    ),
    "R10": Rule(
        "an epoch's age counts from when it was made",
        ((gc._Collection, "_replaced_at", _age_since_made),),
        seed=2,
    ),
    "R11": Rule(
        "assigned ids are those of the first attempt",
        ((InsertRows, "apply", _take_ids_once),),
        kind(Setup.spread, crew={"Writer": 10}, written=("auto", "auto", "docs")),
    ),
    "R12": Rule("nobody looks whether a key has been used", ((attempt, "_recorded", _no_record),)),
    "R13": Rule(
        "nobody looks whose manifest it is",
        ((history, "decode_manifest", _believe), (snapshot, "decode_manifest", _believe)),
        kind(Setup.spread, swap=0.02),
    ),
    "R14": Rule(
        "a process adopts whatever it is answered, in the order of the answers",
        ((SnapshotSource, "_settle", _settle_on_anything), (SnapshotSource, "observe", _observe_anything)),
        play=schedules.answers_out_of_order,
    ),
    "R15": Rule(
        "an epoch that is replaced at the moment is taken for expired",
        ((history, "read_epoch", _look_once),),
        play=schedules.replaced_while_it_is_looked_for,
    ),
    "R16": Rule(
        "a compaction gives up when it loses a race",
        ((SwapParts, "apply", _give_up),),
        _crowded,
    ),
    "R17": Rule("the etag is a time", ((MemoryStore, "_make", _etag_of_time),)),
}
