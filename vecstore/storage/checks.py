"""What every store asks of keys and ranges before it does anything. Imports errors only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from vecstore.errors import InvalidArgument, StorageCorrupt, StorageMissing
from vecstore.storage.base import ByteRange

MAX_KEY_BYTES: Final = 1024  # of S3
MAX_SEGMENT_BYTES: Final = 255  # of common filesystems

_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_PREFIX = re.compile(rf"(?:{_SEGMENT}/)*[A-Za-z0-9._-]{{0,255}}")


def can_be_key(key: str) -> bool:
    """Whether a store of ours may have such an object: others may lie under its root or prefix."""
    return len(key) <= MAX_KEY_BYTES and _KEY.fullmatch(key) is not None


def check_key(key: str) -> None:
    """`InvalidArgument` unless ``key`` is a relative path that means the same to every store."""
    if not can_be_key(key):
        raise InvalidArgument(f"{key[:200]!r} is not a key", field="key", limit=MAX_KEY_BYTES)


def check_prefix(prefix: str, *, folder: bool = False) -> None:
    """`InvalidArgument` unless ``prefix`` may start a key; with ``folder`` it is empty or ends in ``/``."""
    if len(prefix) > MAX_KEY_BYTES or not _PREFIX.fullmatch(prefix):
        raise InvalidArgument(f"{prefix[:200]!r} is not the start of a key", field="prefix")
    if folder and prefix and not prefix.endswith("/"):
        raise InvalidArgument(f"{prefix!r} does not end in '/'", field="prefix")


def check_limit(limit: int) -> None:
    """`InvalidArgument` unless a page may hold ``limit`` entries."""
    if limit < 1:
        raise InvalidArgument(f"limit is {limit}; it must be at least 1", field="limit")


def check_ranges(ranges: Sequence[ByteRange]) -> None:
    """`InvalidArgument` if a range starts or extends backwards."""
    for wanted in ranges:
        if wanted.start < 0 or wanted.length < 0:
            raise InvalidArgument(f"{wanted} has a negative bound", field="range")


def missing(key: str) -> StorageMissing:
    """The error of an object that is not there."""
    return StorageMissing(f"there is no object {key!r}", object=key)


def cut_off(key: str, wanted: ByteRange, size: int) -> StorageCorrupt:
    """The error of an object of ``size`` bytes that ends before a range does."""
    return StorageCorrupt(
        f"object {key!r} has {size} bytes, not the {wanted.stop} that were to be there",
        object=key,
        offset=wanted.start,
        length=wanted.length,
        size=size,
    )
