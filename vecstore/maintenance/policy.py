"""When to merge which parts: pure functions of a manifest."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from msgspec import UnsetType
from msgspec.structs import replace

from vecstore.limits import COMPACTION_BYTES
from vecstore.manifest.model import Manifest, Part
from vecstore.part.builder import form_of
from vecstore.types import IdKind

ROW_BYTES: Final[dict[IdKind, int]] = {"u64": 128, "string": 384}  # of a merge that stay in memory, a row
MANY_MORE: Final = 1.5  # times as many lists as rows that crowd ask for above what the settings do
NONE: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Policy:
    """When to merge what.

    Attributes
    ----------
    fan_in
        Parts of one tier that are merged; tiers grow by this factor.
    tiny_parts
        As many parts that are scanned exactly are merged, whatever their tier, but for those that outweigh
        all smaller ones together: a row is written again only when its part at least doubles.
    dead_share
        A part with a larger share of dead rows is rewritten.
    max_bytes
        Vectors of a merged part at most, 4 bytes a dimension.
    memory
        Bytes that a merge may take; the rest of what it needs lies in temporary files. Half of it is for
        what grows with rows alone, `ROW_BYTES` each, and so bounds a merged part's rows.
    """

    fan_in: int = 8
    tiny_parts: int = 8
    dead_share: float = 0.2
    max_bytes: int = 4 << 30
    memory: int = COMPACTION_BYTES

    def max_rows(self, manifest: Manifest) -> int:
        """Rows of a merged part at most."""
        by_memory = self.memory // (2 * ROW_BYTES[manifest.id_kind or "u64"])
        return min(by_memory, self.max_bytes // (4 * manifest.dim))


@dataclass(frozen=True, slots=True)
class Plan:
    """Parts to merge, and why."""

    parts: tuple[str, ...]
    reason: str


def plan(manifest: Manifest, policy: Policy, expired: Mapping[str, int] = NONE) -> Plan | None:
    """What is due, the most useful first; None if nothing is.

    Parameters
    ----------
    expired
        Live rows of parts, by their ids, that no one can read any more: they wear a part as dead ones do.
    """
    parts = manifest.parts
    tiny = _alike([p for p in parts if p.n * manifest.dim <= manifest.settings.small_part_threshold])
    if len(tiny) >= policy.tiny_parts:
        found = _bounded(tiny, manifest, policy, "tiny parts")
        if found is not None:
            return found
    tiers: dict[int, list[Part]] = {}
    for part in parts:
        tiers.setdefault(tier(part.live, policy.fan_in), []).append(part)
    for number in sorted(tiers):
        if len(tiers[number]) >= policy.fan_in:
            found = _bounded(tiers[number], manifest, policy, f"tier {number} is full")
            if found is not None:
                return found
    return _worn(parts, policy.dead_share, "dead rows", expired)


def tier(live: int, fan_in: int) -> int:
    """Of a part with so many live rows; a tier holds ``fan_in`` times as many as the one below."""
    return int(math.log(max(live, 1), fan_in))


def plan_all(manifest: Manifest, policy: Policy, expired: Mapping[str, int] = NONE) -> Plan | None:
    """Everything into as few parts as the bound allows, and each as the settings and the schema are now.

    None if that is how it is already.
    """
    parts = manifest.parts
    return (
        _bounded(parts, manifest, policy, "asked for")
        or _worn(parts, 0.0, "asked for", expired)
        or _outdated(manifest, "asked for")
    )


def _alike(parts: Sequence[Part]) -> list[Part]:
    """Without the largest, as long as one is larger than all the others together."""
    kept = sorted(parts, key=lambda part: part.live)
    rows = sum(part.live for part in kept)
    while kept and 2 * kept[-1].live > rows:
        rows -= kept.pop().live
    return kept


def _bounded(parts: Sequence[Part], manifest: Manifest, policy: Policy, reason: str) -> Plan | None:
    """The smallest parts that together stay within the bound, two at least.

    Those without vectors are merged with each other alone: what they lack cannot be made up, nor shall the
    others lose theirs.
    """
    most = policy.max_rows(manifest)
    for bare in (False, True):
        chosen: list[Part] = []
        rows = 0
        for part in sorted((p for p in parts if (p.vectors == "none") is bare), key=lambda p: p.live):
            rows += part.live
            if rows > most:
                break
            chosen.append(part)
        if len(chosen) > 1:
            return Plan(tuple(part.id for part in chosen), reason)
    return None


def _worn(parts: Sequence[Part], share: float, reason: str, expired: Mapping[str, int]) -> Plan | None:
    """The part with the most dead rows, of those with a larger share of them."""
    dead = {part.id: part.n - part.live + expired.get(part.id, 0) for part in parts}
    worn = [part.id for part in parts if dead[part.id] > share * part.n]
    return Plan((max(worn, key=dead.__getitem__),), reason) if worn else None


def _outdated(manifest: Manifest, reason: str) -> Plan | None:
    """The first part that holds values of an attribute that was dropped, or would be built otherwise now."""
    kept = {attribute.id for attribute in manifest.attributes.values()}
    for part in manifest.parts:
        columns = () if isinstance(part.columns, UnsetType) else part.columns
        if not kept.issuperset(columns) or not _in_form(part, manifest):
            return Plan((part.id,), reason)
    return None


def _in_form(part: Part, manifest: Manifest) -> bool:
    wanted = form_of(part.n, manifest.dim, manifest.settings)
    if part.vectors == "none":  # what was not kept cannot be had again
        wanted = replace(wanted, vectors="none")
    if not isinstance(part.form, UnsetType):
        return part.form == wanted
    lists = max(1, wanted.lists)
    return part.vectors == wanted.vectors and lists / MANY_MORE <= part.k <= MANY_MORE * lists
