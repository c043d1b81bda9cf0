"""Compaction: merges parts, drops dead rows, retrains, and swaps by one commit.

Correctness rests on the commit alone (protocol R6, R16): it is planned anew on every base, carries
over what died meanwhile, and is thrown away when a source is gone or the lineage has changed. The
lease only keeps two nodes from doing the same work; it is renewed while the work goes on.

What is due is decided in ``policy.py``; the work, within a bound of memory, is ``merge.py``.
"""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore import deadline
from vecstore.engine.namespace import NamespaceEngine
from vecstore.errors import StorageError, StorageMissing, VecstoreError
from vecstore.index.expiry import expired_rows
from vecstore.maintenance.columns import merged_columns
from vecstore.maintenance.merge import Source, merge
from vecstore.maintenance.policy import Plan, Policy, plan, plan_all
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.lease import Lease, holder_of
from vecstore.manifest.model import Manifest, Mean, Part
from vecstore.part.builder import PartSpec
from vecstore.progress import Progress, within
from vecstore.rows.bits import bitmap_of
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, CompactResult

log = logging.getLogger(__name__)

LEASE: Final = "compaction"
LEASE_SECONDS: Final = 300.0  # longer than the longest step that reports no progress
RENEW_SECONDS: Final = 20.0
BUILT, UPLOADED = 0.85, 0.99  # of a compaction, once its part is built, and is in the store


class SourceGone(VecstoreError):
    """A source of a compaction left the manifest: the work is thrown away."""

    code = "compaction_lost"
    status = 409


@dataclass(kw_only=True, eq=False)
class SwapParts(Change):
    """Replace sources by their merged part.

    Attributes
    ----------
    sources
        Each source, the rows that were dead when it was read, and where its rows went: i64[n],
        -1 for those.
    part
        The merged part's line; None if nothing was alive.
    columns
        Its `Part.columns`: by the ids that the attributes had when their values were read.
    """

    lineage: str
    sources: tuple[tuple[Part, BitMap, npt.NDArray[np.int64]], ...]
    part: Part | None
    columns: tuple[int, ...] | UnsetType = UNSET
    mean: Mean | None
    upload: Any

    def apply(self, draft: Draft) -> dict[str, Any]:
        if draft.manifest.lineage != self.lineage:
            raise SourceGone("the namespace was restored meanwhile")
        carried = BitMap()
        for source, dead_then, moved in self.sources:
            if draft.part(source.id) is None:
                raise SourceGone(f"source {source.id} is gone", part=source.id)
            since = draft.dead(source.id) - dead_then
            carried |= BitMap(moved[np.fromiter(since, dtype=np.int64, count=len(since))].tolist())
        draft.remove_parts([source.id for source, _, _ in self.sources])
        if self.part is not None:
            if self.mean is not None:
                draft.add_mean(self.mean)
            draft.add_part(replace(self.part, columns=self.columns))
            draft.kill(self.part.id, carried)
        return {"carried": len(carried)}

    def oldest_upload(self) -> float | None:
        return None if self.part is None else self.part.began

    def upload_again(self) -> None:
        self.part = self.upload()


def compact_once(
    engine: NamespaceEngine,
    *,
    policy: Policy | None = None,
    folder: str | None = None,
    everything: bool = False,
    progress: Progress | None = None,
) -> CompactResult:
    """Carry out one compaction that is due (or, with ``everything``, merge all parts).

    Returns a result without ``part_id`` and ``merged`` if nothing was due, another node holds the
    lease, or the work was thrown away; ``reason`` says which.

    Parameters
    ----------
    folder
        Of temporary files; None as `vecstore.room.Room` takes it.
    """
    policy = policy if policy is not None else Policy()
    manifest = engine.snapshots.strong().manifest
    wanted = (plan_all if everything else plan)(manifest, policy, expired(engine, manifest))
    if wanted is None:
        return CompactResult((), None, 0, manifest.epoch, "nothing due")
    about = {
        "began": engine.store.now(),
        "parts": len(wanted.parts),
        "rows": sum(part.live for part in manifest.parts if part.id in set(wanted.parts)),
        "reason": wanted.reason,
        "done": 0.0,
    }
    lease = Lease(
        engine.store,
        engine.name,
        LEASE,
        holder=holder(),
        ttl=LEASE_SECONDS,
        rng=engine.rng,
        about=about,
        left=engine.compactions,
    )
    try:
        if not lease.acquire():
            return CompactResult((), None, 0, manifest.epoch, "another node is compacting")
        told = _renewing(lease, about, engine.clock, within(progress, 0.0, 1.0))
        try:
            return _compact(engine, manifest, wanted, policy.memory, folder, told)
        except (SourceGone, StorageMissing) as error:
            log.info("compaction of %s thrown away: %s", engine.name, error)
            return CompactResult((), None, 0, manifest.epoch, "thrown away")
    finally:
        with suppress(StorageError):  # it expires by itself, and what was done is done
            lease.release()


def expired(engine: NamespaceEngine, manifest: Manifest) -> dict[str, int]:
    """Live rows of each part that have expired."""
    if manifest.settings.expire_by is None:
        return {}
    every, left = engine.views.open(manifest, ReadTrace()), engine.live_view(manifest, ReadTrace())
    return {
        one.reader.entry.id: one.live.alive - other.live.alive
        for one, other in zip(every.parts, left.parts, strict=True)
    }


def holder() -> str:
    """Who we are, for people who look at a lease."""
    return f"{socket.gethostname()}:{os.getpid()}"


def under_way(engine: NamespaceEngine) -> dict[str, Any] | None:
    """The compaction of a namespace that any process is at: its holder, when it began, how far it is."""
    held = holder_of(engine.store, engine.name, LEASE)
    return None if held is None else {"holder": held.holder, **held.about}


def _renewing(
    lease: Lease, about: dict[str, Any], clock: Callable[[], float], progress: Progress
) -> Progress:
    """Progress that keeps the lease alive and says in it how far the work is, as often as it is told of.

    Whoever finds that another has it goes on all the same: only a source that is gone ends the work (R16).
    """
    due = clock() + RENEW_SECONDS

    def tell(share: float) -> None:
        nonlocal due
        if clock() >= due:
            due = clock() + RENEW_SECONDS
            try:
                if not lease.renew({**about, "done": round(share, 3)}):
                    log.info("another node took the lease over; one of us will have worked in vain")
                    due = math.inf
            except StorageError as error:
                log.info("a lease was not renewed, which is tried again: %s", error)
        progress(share)

    return tell


def _compact(
    engine: NamespaceEngine,
    manifest: Manifest,
    wanted: Plan,
    memory: int,
    folder: str | None,
    progress: Progress,
) -> CompactResult:
    view = engine.views.open(manifest, ReadTrace())
    # What is expired counts as dead when it was read: it is left out, and its death later carries nothing.
    now = 0.0 if manifest.settings.expire_by is None else engine.store.now()
    sources = [
        Source(
            part,
            engine.tombstones.dead(part.reader.entry)
            | bitmap_of(expired_rows(manifest, part, now, ReadTrace())),
        )
        for part in view.parts
        if part.reader.entry.id in set(wanted.parts)
    ]
    mean: Mean | None = None

    def spec(vectors: F32) -> PartSpec:
        nonlocal mean
        mean = engine.writes.mean_for(manifest, vectors)
        return engine.writes.spec(manifest, mean)

    step = deadline.checked(progress)
    merged = merge(view, sources, spec, memory=memory, folder=folder, progress=within(step, 0.0, BUILT))

    def upload() -> Part | None:
        if merged.image is None:
            return None
        return engine.writes.upload(merged.image, mean, progress=within(step, BUILT, UPLOADED))

    change = SwapParts(
        commit_id=engine.publisher.new_commit_id(),
        incarnation=manifest.incarnation,
        lineage=manifest.lineage,
        sources=tuple(
            (replace(source.part.reader.entry), source.dead, moved)
            for source, moved in zip(sources, merged.moved, strict=True)
        ),
        part=upload(),
        columns=merged_columns(manifest, merged.image),
        mean=mean,
        upload=upload,
    )
    done = engine.publisher.commit(change)
    progress(1.0)
    rows = 0 if merged.image is None else merged.image.n
    log.info(
        "compacted %s: %d parts, %d rows (%s), epoch %d",
        engine.name,
        len(sources),
        rows,
        wanted.reason,
        done.epoch,
    )
    return CompactResult(
        wanted.parts, None if change.part is None else change.part.id, rows, done.epoch, wanted.reason
    )
