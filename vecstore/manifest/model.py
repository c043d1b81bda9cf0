"""The manifest: the JSON view of a namespace at one epoch.

Formats: ``docs/formats/manifest.md``. Rules: protocol R1-R17. Imports errors, limits and types only.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from crc32c import crc32c
from msgspec import UNSET, Meta, Struct, UnsetType

from vecstore.errors import NOT_JSON, StorageCorrupt, unsupported_format
from vecstore.limits import MAX_DIM, MAX_NAME_BYTES, MAX_PART_ROWS, MAX_U64
from vecstore.types import AttributeType, IdKind, Metric, RerankPrecision, StoreVectors

FORMAT: Final = 0

Fraction = Annotated[float, Meta(gt=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0, le=(1 << 62))]  # of bytes or rows, or an epoch: sums of two are int64
Rows = Annotated[int, Meta(ge=1, le=MAX_PART_ROWS)]
Checksum = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
U64 = Annotated[int, Meta(ge=0)]  # at most `MAX_U64`, which msgspec cannot say
Name = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=MAX_NAME_BYTES)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Per-namespace defaults of build and search, changeable with ``PATCH``.

    Attributes
    ----------
    list_rows
        Rows a list when a part is trained; 0 lets ``cluster_factor`` decide.
    cluster_factor
        K = cluster_factor * sqrt(N) where ``list_rows`` is 0.
    k_min, k_max
        Bounds of K.
    small_part_threshold
        A part of N * dim at most this is kept as one list and scanned exactly.
    store_vectors
        Precision at which vectors are kept as given, or not at all. A part keeps fp32 instead of
        fp16 where float16 cannot hold one of its rows. ``none`` is final as long as there are parts
        without vectors.
    probe_fraction, nprobe_cap
        nprobe = clamp(round(probe_fraction * K), 1, min(K, nprobe_cap)).
    target_recall
        As much of each part as its calibration and the query's own distances ask for. Wins over
        ``probe_fraction``, which serves parts that are too small to be calibrated, and all parts once
        this is null.
    rerank_scale, rerank_precision, fp32_rerank_cap
        Candidates a hit that are re-ranked (0 skips it), how, and how many at most by fp32. A target may
        be met by fp32 instead of int8 where that costs less.
    expire_by
        A filterable attribute of ``datetime``: once it has passed, by the store's clock, a row is not read
        any more, and compaction leaves it out. Null: rows do not expire.
    """

    list_rows: Annotated[int, Meta(ge=0, le=1_048_576)] = 32
    cluster_factor: Annotated[float, Meta(gt=0.0, le=1000.0)] = 4.0
    k_min: Annotated[int, Meta(ge=1, le=65_536)] = 1
    k_max: Annotated[int, Meta(ge=1, le=65_536)] = 65_536
    small_part_threshold: Annotated[int, Meta(ge=0, le=1 << 32)] = 200_000
    store_vectors: StoreVectors = "fp32"
    probe_fraction: Fraction = 0.10
    nprobe_cap: Annotated[int, Meta(ge=1, le=65_536)] = 8_192
    target_recall: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = 0.955
    rerank_scale: Annotated[float, Meta(ge=0.0, le=1000.0)] = 8.0
    rerank_precision: RerankPrecision = "int8"
    fp32_rerank_cap: Annotated[int, Meta(ge=1, le=100_000)] = 1_000
    expire_by: str | None = None


class Attribute(Struct, frozen=True):
    """One attribute of the schema.

    Attributes
    ----------
    id
        Never used again in the namespace, so that an attribute which is dropped and added anew has
        nothing of its old values.
    filterable
        Whether filters may ask about it; else it is read only.
    """

    id: Count
    type: AttributeType
    filterable: bool = True


class Section(Struct, frozen=True, array_like=True):
    """Where a section of a part lies."""

    offset: Count
    length: Count


class Tombstone(Struct, frozen=True, kw_only=True):
    """The dead rows of one part: a roaring bitmap inside a delete object (R6: whole so far)."""

    delete_id: Name
    owner: Name
    offset: Count
    length: Count
    crc32c: Checksum
    dead: Count
    began: float  # store time at which the upload of the object began (R3)


class Form(Struct, frozen=True, array_like=True):
    """What the settings asked of a part when it was built; what came of it depends on its rows.

    Attributes
    ----------
    lists
        Into which its rows were to be divided; 0 where it is scanned exactly.
    list_rows
        Rows that a list was to hold at most; 0 where the settings gave no size.
    vectors
        Precision at which vectors were to be kept.
    """

    lists: Count
    list_rows: Count
    vectors: StoreVectors


class Part(Struct, frozen=True, kw_only=True):
    """One immutable part.

    Attributes
    ----------
    owner
        Namespace whose prefix holds the object (R9).
    n
        Rows, dead ones included.
    bytes, began
        Size of the object; store time at which its upload began (R3).
    id_base
        Added to stored ids 0 … n-1 when they were assigned (R11); None if ids were given.
    id_min, id_max
        Range of the ids, as decimal or string, to skip parts when an id is resolved.
    mean
        Name of the mean in `Manifest.means` that the part was encoded with.
    vectors
        Precision at which the part keeps its vectors.
    sections
        Section table of the part, repeated here so that a reader goes straight to ranges.
    checksums_crc32c
        Of the section ``checksums``, which holds the checksum of every page of the others.
    columns
        The `Attribute.id` that each column of the part had when it was committed, in the order of its
        directory. A column whose id the schema no longer names is no more.
    form
        Absent of a part that a patch has copied lists into, and of those built before it was kept.
    """

    id: Name
    owner: Name
    n: Rows
    k: Rows
    bytes: Count
    began: float
    id_base: int | None = None
    id_min: int | str | None = None
    id_max: int | str | None = None
    mean: str | None = None
    vectors: StoreVectors = "fp32"
    sections: dict[str, Section]
    checksums_crc32c: Checksum
    tombstone: Tombstone | None = None
    columns: tuple[Count, ...] | UnsetType = UNSET
    form: Form | UnsetType = UNSET

    @property
    def live(self) -> int:
        return self.n - (self.tombstone.dead if self.tombstone is not None else 0)


class Mean(Struct, frozen=True):
    """A centre that parts were encoded with: base64 of little-endian f32[dim]."""

    id: str
    f32: bytes


class CommitRef(Struct, frozen=True, array_like=True):
    """A commit id and the epoch in which it was applied (R1)."""

    id: str
    epoch: Count


class IdempotencyRecord(Struct, frozen=True):
    """An applied request (R12): its key, a digest of it, the answer it got, in which epoch, and when."""

    key: str
    request: str
    answer: dict[str, Any]
    epoch: Count
    at: float


class Ancestor(Struct, frozen=True):
    """An epoch that a branch rests on: its namespace owns objects that the branch names (R9)."""

    namespace: Name
    incarnation: str
    epoch: Count


class Pin(Struct, frozen=True, kw_only=True):
    """An epoch that collection must keep, for a tag or a branch (R9).

    Attributes
    ----------
    name
        Of the tag, or of the namespace that is the branch.
    incarnation, epoch
        What is kept.
    branch, first
        Incarnation that the branch is created with, and the only epoch under its name at which it can
        begin: once that epoch is another's, the branch never was and never will be.
    """

    name: Name
    kind: Literal["tag", "branch"]
    incarnation: str
    epoch: Count
    created_at: float
    branch: str | None = None
    first: Count = 0


class Copied(Struct, frozen=True, kw_only=True):
    """What the rows of a namespace are a copy of (decision 0032).

    Attributes
    ----------
    incarnation, lineage, epoch, state
        Of the namespace that was copied, at the epoch that was; ``state`` is its `rows_state`.
    own_lineage, own_state
        Of this namespace when that was committed.
    settings, schema
        Of both. Whichever has others now, or another lineage or state, has been written to since.
    parts
        Parts that have another id here than there: theirs, and ours.
    tags
        By name, of each tag that was copied: the epoch that it holds there, and here.
    """

    incarnation: str
    lineage: str
    epoch: Count
    state: str
    own_lineage: str
    own_state: str
    settings: Settings
    schema: dict[str, Attribute] = {}
    parts: dict[str, str] = {}
    tags: dict[str, tuple[Count, Count]] = {}


class Manifest(Struct, frozen=True, kw_only=True):
    """A namespace at one epoch. Frozen: a commit makes the next one with `msgspec.structs.replace`.

    Attributes
    ----------
    ancestors
        Of a branch: the epoch that it came from, then those that this one rested on in turn.
    schema, next_attribute
        Attributes by name, and the id that the next one gets, which never falls. Both absent as long
        as there never was one.
    copied
        Whence the rows came, if they did by a copy from another store.
    """

    format: int = FORMAT
    namespace: str
    incarnation: str
    lineage: str
    epoch: Count
    state: Literal["active", "deleted"] = "active"
    ancestors: tuple[Ancestor, ...] = ()
    created_at: float
    committed_at: float
    dim: Annotated[int, Meta(ge=1, le=MAX_DIM)]
    metric: Metric
    id_kind: IdKind | None = None
    rotation_seed: U64
    settings: Settings = msgspec.field(default_factory=Settings)
    means: tuple[Mean, ...] = ()
    parts: tuple[Part, ...] = ()
    next_id: U64 = 0
    commits: tuple[CommitRef, ...] = ()
    idempotency: tuple[IdempotencyRecord, ...] = ()
    pins: tuple[Pin, ...] = ()
    horizon: float = 0.0
    history_floor: Count = 0
    schema: dict[str, Attribute] | UnsetType = UNSET
    next_attribute: Count | UnsetType = UNSET
    copied: Copied | UnsetType = UNSET

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The schema; empty as long as no row had an attribute."""
        return {} if self.schema is UNSET else self.schema

    @property
    def rows(self) -> int:
        """Live rows."""
        return sum(part.live for part in self.parts)

    @property
    def owners(self) -> frozenset[str]:
        """The namespaces that own the objects which are named here."""
        tombstones = (part.tombstone for part in self.parts if part.tombstone is not None)
        return frozenset((*(part.owner for part in self.parts), *(t.owner for t in tombstones)))

    def keeps(self, epoch: int) -> bool:
        """Whether collection leaves an epoch up to this one alone: it is readable, or pinned (R3, R9)."""
        return epoch >= self.history_floor or any(pin.epoch == epoch for pin in self.pins)


class _Envelope(Struct, frozen=True):
    crc32c: str
    manifest: msgspec.Raw


_encoder = msgspec.json.Encoder()
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_manifest_decoder = msgspec.json.Decoder(Manifest)
_any_decoder = msgspec.json.Decoder()


def encode_manifest(manifest: Manifest) -> bytes:
    """The object's bytes: ``{"crc32c": "<hex of the inner bytes>", "manifest": {…}}`` (R13)."""
    body = _encoder.encode(manifest)
    return _encoder.encode(_Envelope(f"{crc32c(body):08x}", msgspec.Raw(body)))


def decode_manifest(data: bytes, *, key: str, namespace: str) -> Manifest:
    """Parse and verify; `StorageCorrupt` names ``key`` if checksum, shape, format or name is wrong."""

    def corrupt(why: str) -> StorageCorrupt:
        return StorageCorrupt(f"{key}: {why}", object=key, section="manifest")

    try:
        envelope = _envelope_decoder.decode(data)
    except NOT_JSON as error:
        raise corrupt(f"not a manifest: {error}") from error
    body = bytes(envelope.manifest)
    if envelope.crc32c != f"{crc32c(body):08x}":
        raise corrupt("manifest fails its checksum")
    try:
        manifest = _manifest_decoder.decode(body)
    except NOT_JSON as error:
        found = _format_of(body)
        if found != FORMAT:
            raise unsupported_format("manifest", found, FORMAT, key=key, section="manifest") from error
        raise corrupt(f"malformed manifest: {error}") from error
    if manifest.format != FORMAT:
        raise unsupported_format("manifest", manifest.format, FORMAT, key=key, section="manifest")
    if manifest.namespace != namespace:
        raise corrupt(f"manifest of namespace {manifest.namespace!r} found under {namespace!r}")
    problem = _contradiction(manifest)
    if problem is not None:
        raise corrupt(f"malformed manifest: {problem}")
    return manifest


def _format_of(body: bytes) -> object:
    """What another manifest says of its format, whatever else it holds."""
    try:
        fields = _any_decoder.decode(body)
    except NOT_JSON:
        return FORMAT
    return fields.get("format", FORMAT) if isinstance(fields, dict) else FORMAT


def _contradiction(manifest: Manifest) -> str | None:
    """What readers rely on and types cannot say; `vecstore.invariants` holds the rest against the rules."""
    if max(manifest.next_id, manifest.rotation_seed) > MAX_U64:
        return "a number is beyond 64 bits"
    means = {mean.id for mean in manifest.means}
    if any(len(mean.f32) != 4 * manifest.dim for mean in manifest.means):
        return f"a mean has not {manifest.dim} dimensions"
    if len({part.id for part in manifest.parts}) != len(manifest.parts):
        return "a part is named twice"
    strings = manifest.id_kind == "string"
    for part in manifest.parts:
        if part.k > part.n or (part.mean is not None and part.mean not in means):
            return f"part {part.id} has more lists than rows, or a mean that is not there"
        if not _ids_hold(part, strings):
            return f"part {part.id} has ids of another kind than the namespace, or beyond 64 bits"
        tombstone = part.tombstone
        if tombstone is not None and not 0 < tombstone.dead <= part.n:
            return f"part {part.id} has {tombstone.dead} dead rows of {part.n}"
    return None


def _ids_hold(part: Part, strings: bool) -> bool:
    least, greatest, base = part.id_min, part.id_max, part.id_base or 0
    if isinstance(least, int) and isinstance(greatest, int):
        return not strings and 0 <= base <= base + least <= base + greatest <= MAX_U64
    if isinstance(least, str) and isinstance(greatest, str):
        return strings and part.id_base is None and least <= greatest
    return least is None and greatest is None and 0 <= base <= MAX_U64  # nothing is said of them
