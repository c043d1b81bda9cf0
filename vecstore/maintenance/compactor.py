"""Compaction: merges parts, drops dead rows, retrains, and swaps by one commit.

Correctness rests on the commit alone (protocol R6, R16): it is planned anew on every base, carries
over what died meanwhile, and is thrown away when a source is gone or the lineage has changed. The
lease only keeps two nodes from doing the same work.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from pyroaring import BitMap

from vecstore.engine.namespace import NamespaceEngine
from vecstore.errors import StorageError, StorageMissing, VecstoreError
from vecstore.index.view import OpenPart, View
from vecstore.maintenance.columns import gather_columns, merged_columns
from vecstore.manifest.draft import Change, Draft
from vecstore.manifest.lease import Lease
from vecstore.manifest.model import Manifest, Mean, Part
from vecstore.part.builder import PartImage, build_part
from vecstore.progress import Progress, within
from vecstore.rows.ids import Ids, keys_of
from vecstore.storage.cache import ReadTrace
from vecstore.types import F32, CompactResult

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 600.0
READ_ROWS: Final = 16_384
GATHERED, BUILT = 0.1, 0.9  # of a compaction, once its rows are read, and its part is built
SPOOL_BYTES: Final = 64 << 20  # merged vectors beyond this lie in a temporary file


@dataclass(frozen=True, slots=True)
class Policy:
    """When to merge what.

    Attributes
    ----------
    fan_in
        Parts of one tier that are merged; tiers grow by this factor.
    tiny_parts
        As many parts that are scanned exactly are merged, whatever their tier.
    dead_share
        A part with a larger share of dead rows is rewritten.
    max_bytes
        Vectors of a merged part at most, 4 bytes a dimension. Their rotated copy is held in memory.
    """

    fan_in: int = 8
    tiny_parts: int = 8
    dead_share: float = 0.2
    max_bytes: int = 4 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """Parts to merge, and why."""

    parts: tuple[str, ...]
    reason: str


def plan(manifest: Manifest, policy: Policy) -> Plan | None:
    """What is due, the most useful first; None if nothing is."""
    parts = manifest.parts
    tiny = [p for p in parts if p.n * manifest.dim <= manifest.settings.small_part_threshold]
    if len(tiny) >= policy.tiny_parts:
        found = _bounded(tiny, manifest.dim, policy, "tiny parts")
        if found is not None:
            return found
    tiers: dict[int, list[Part]] = {}
    for part in parts:
        tiers.setdefault(int(math.log(max(part.live, 1), policy.fan_in)), []).append(part)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= policy.fan_in:
            found = _bounded(tiers[tier], manifest.dim, policy, f"tier {tier} is full")
            if found is not None:
                return found
    worn = [p for p in parts if p.n - p.live > policy.dead_share * p.n]
    if worn:
        worst = max(worn, key=lambda p: p.n - p.live)
        return Plan((worst.id,), "dead rows")
    return None


def plan_all(manifest: Manifest, policy: Policy) -> Plan | None:
    """Everything into as few parts as the bound allows; None if that is how it is already."""
    parts = manifest.parts
    if len(parts) < 2 and all(part.live == part.n for part in parts):
        return None
    return _bounded(parts, manifest.dim, policy, "asked for") or plan(manifest, policy)


def _bounded(parts: Sequence[Part], dim: int, policy: Policy, reason: str) -> Plan | None:
    """The smallest parts that together stay within the bound."""
    chosen: list[Part] = []
    size = 0
    for part in sorted(parts, key=lambda p: p.live):
        size += part.live * dim * 4
        if size > policy.max_bytes and chosen:
            break
        chosen.append(part)
    if len(chosen) < 2 and all(part.live == part.n for part in chosen):
        return None
    return Plan(tuple(part.id for part in chosen), reason)


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
    columns: dict[str, int] | UnsetType = UNSET
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
    everything: bool = False,
    progress: Progress | None = None,
) -> CompactResult:
    """Carry out one compaction that is due (or, with ``everything``, merge all parts).

    Returns a result without ``part_id`` and ``merged`` if nothing was due, another node holds the
    lease, or the work was thrown away; ``reason`` says which.
    """
    policy = policy if policy is not None else Policy()
    manifest = engine.snapshots.strong().manifest
    wanted = (plan_all if everything else plan)(manifest, policy)
    if wanted is None:
        return CompactResult((), None, 0, manifest.epoch, "nothing due")
    lease = Lease.acquire(
        engine.store, engine.name, "compaction", holder=holder(), ttl=LEASE_SECONDS, rng=engine.rng
    )
    if lease is None:
        return CompactResult((), None, 0, manifest.epoch, "another node is compacting")
    try:
        return _compact(engine, manifest, wanted, progress)
    except (SourceGone, StorageMissing) as error:
        log.info("compaction of %s thrown away: %s", engine.name, error)
        return CompactResult((), None, 0, manifest.epoch, "thrown away")
    finally:
        with suppress(StorageError):  # it expires by itself, and what was done is done
            lease.release()


def holder() -> str:
    """Who we are, for people who look at a lease."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _compact(
    engine: NamespaceEngine, manifest: Manifest, wanted: Plan, progress: Progress | None
) -> CompactResult:
    view = engine.views.open(manifest, ReadTrace())
    chosen = [part for part in view.parts if part.reader.entry.id in set(wanted.parts)]
    dead = {p.reader.entry.id: engine.tombstones.dead(p.reader.entry).copy() for p in chosen}
    rows = sum(part.live.alive for part in chosen)
    with _room(rows, manifest.dim) as vectors:
        kept, ids = _gather(view, chosen, dead, vectors, within(progress, 0.0, GATHERED))
        image: PartImage | None = None
        mean: Mean | None = None
        if rows:
            mean = engine.mean_for(manifest, vectors)
            image = build_part(
                vectors,
                ids,
                engine.spec(manifest, mean),
                attributes=gather_columns(manifest, chosen, kept),
                progress=within(progress, GATHERED, BUILT),
            )

        def upload() -> Part | None:
            return None if image is None else engine.upload(image, mean)

        part = upload()
        change = SwapParts(
            commit_id=engine.publisher.new_commit_id(),
            incarnation=manifest.incarnation,
            lineage=manifest.lineage,
            sources=_sources(chosen, dead, kept, image),
            part=part,
            columns=merged_columns(manifest, image),
            mean=mean,
            upload=upload,
        )
        done = engine.publisher.commit(change)
    within(progress, BUILT, 1.0)(1.0)
    log.info(
        "compacted %s: %d parts, %d rows (%s), epoch %d",
        engine.name,
        len(chosen),
        rows,
        wanted.reason,
        done.epoch,
    )
    return CompactResult(
        wanted.parts, None if change.part is None else change.part.id, rows, done.epoch, wanted.reason
    )


@contextmanager
def _room(rows: int, dim: int) -> Iterator[F32]:
    """f32[rows, dim], in a temporary file if it is large."""
    if rows * dim * 4 <= SPOOL_BYTES:
        yield np.empty((rows, dim), dtype=np.float32)
        return
    with tempfile.TemporaryFile(prefix="vecstore-compact-") as file:
        yield np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, dim))


def _gather(
    view: View, chosen: Sequence[OpenPart], dead: dict[str, BitMap], vectors: F32, progress: Progress
) -> tuple[list[npt.NDArray[np.int64]], Ids]:
    """Copy live rows into ``vectors``; the rows kept of each source, and the ids of all."""
    trace = ReadTrace()
    kept: list[npt.NDArray[np.int64]] = []
    ids: list[npt.NDArray[Any]] = []
    at = 0
    for part in chosen:
        reader = part.reader
        alive = np.ones(reader.entry.n, dtype=np.bool_)
        gone = dead[reader.entry.id]
        alive[np.fromiter(gone, dtype=np.int64, count=len(gone))] = False
        rows = np.flatnonzero(alive)
        kept.append(rows)
        ids.append(np.concatenate(list(reader.scan_ids(trace)))[rows])
        for start in range(0, len(rows), READ_ROWS):
            some = rows[start : start + READ_ROWS]
            found = reader.read_vectors(some, trace)
            if found is None:
                found = reader.approximate_vectors(some, view.rotation, view.means[part.group], trace)
            vectors[at : at + len(some)] = found
            at += len(some)
            progress(at / len(vectors))
    values = np.concatenate(ids)
    if view.manifest.id_kind == "string":
        return kept, Ids("string", values, keys_of(values))
    return kept, Ids("u64", values, values)


def _sources(
    chosen: Sequence[OpenPart],
    dead: dict[str, BitMap],
    kept: Sequence[npt.NDArray[np.int64]],
    image: PartImage | None,
) -> tuple[tuple[Part, BitMap, npt.NDArray[np.int64]], ...]:
    """Where each row of each source lies in the merged part."""
    total = sum(map(len, kept))
    position = np.arange(total, dtype=np.int64)
    if image is not None and image.partition is not None:
        position[image.partition.order] = np.arange(total, dtype=np.int64)
    out, at = [], 0
    for part, rows in zip(chosen, kept, strict=True):
        moved = np.full(part.reader.entry.n, -1, dtype=np.int64)
        moved[rows] = position[at : at + len(rows)]
        at += len(rows)
        out.append((replace(part.reader.entry), dead[part.reader.entry.id], moved))
    return tuple(out)
