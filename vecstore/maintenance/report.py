"""The parts of an epoch as people look at them, with what compaction does and would do about them."""

from __future__ import annotations

from vecstore.engine.namespace import NamespaceEngine
from vecstore.maintenance.compactor import expired, under_way
from vecstore.maintenance.policy import Policy, plan, tier
from vecstore.types import DueCompaction, PartInfo, PartsReport


def parts_report(engine: NamespaceEngine, epoch: int | None, policy: Policy | None) -> PartsReport:
    """Of the current epoch if none is named; reads the lease, and what has expired where rows do."""
    policy = policy if policy is not None else Policy()
    manifest = engine.manifest(epoch)
    due = plan(manifest, policy, expired(engine, manifest)) if epoch is None else None
    return PartsReport(
        epoch=manifest.epoch,
        parts=tuple(
            PartInfo(
                id=part.id,
                tier=tier(part.live, policy.fan_in),
                rows=part.n,
                live=part.live,
                lists=part.k,
                bytes=part.bytes,
                vectors=part.vectors,
                created_at=part.began,
                owner=part.owner,
            )
            for part in manifest.parts
        ),
        fan_in=policy.fan_in,
        due=None if due is None else DueCompaction(due.parts, due.reason),
        compaction=under_way(engine) if epoch is None else None,
        incarnation=manifest.incarnation,
    )
