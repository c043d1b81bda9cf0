"""Ids and names: validation, the keys under which ids are indexed, and the membership filter.

An id is a u64 or a string of at most 64 bytes of UTF-8, one kind per namespace. Inside a part an
id is indexed by its *key*, a u64: the id itself, or the first eight bytes of the BLAKE2b digest
of a string. Two strings may share a key, so whoever looks a string up compares the ids too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.arrow import not_text
from vecstore.errors import InvalidArgument, InvalidId
from vecstore.limits import MAX_ID_BYTES, MAX_NAME_BYTES, MAX_U64
from vecstore.rows.values import shown
from vecstore.types import U64, IdKind

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

FILTER_BITS_A_KEY: Final = 10
FILTER_HASHES: Final = 6


def validate_name(name: object) -> str:
    """A name of a namespace or a tag: 1-128 of ``[A-Za-z0-9._-]``, first a letter or digit.

    `InvalidArgument` if it is none.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME_BYTES or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"name must be 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ - and start with a letter or digit",
            field="name",
            limit=MAX_NAME_BYTES,
        )
    return str.__str__(name)  # and not str(), which of a member of an Enum is another one


class Ids:
    """A batch of ids of one kind.

    Attributes
    ----------
    kind
        ``"u64"`` or ``"string"``.
    values
        u64[n], or an object array of n strings.
    keys
        u64[n] under which they are indexed.
    """

    __slots__ = ("keys", "kind", "values")

    def __init__(self, kind: IdKind, values: npt.NDArray[Any], keys: U64) -> None:
        self.kind = kind
        self.values = values
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: npt.NDArray[np.int64]) -> Ids:
        """Some of them, in another order."""
        values = self.values[rows]
        return Ids(self.kind, values, values if self.values is self.keys else self.keys[rows])

    @property
    def bounds(self) -> tuple[int | str, int | str]:
        """Least and greatest id."""
        if self.kind == "string":
            return min(self.values), max(self.values)
        return int(self.values.min()), int(self.values.max())


def parse_ids(values: object, *, field: str = "ids", unique: bool = True) -> Ids:
    """Validate ids given as a sequence, array or column of non-negative integers or of strings.

    `InvalidId` names the field, the position and the limit: mixed kinds, a float or bool, masked, out of
    u64, empty or longer than 64 bytes, not encodable as UTF-8, or (with ``unique``) given twice.
    """
    if isinstance(values, np.ma.MaskedArray) and values.mask.any():
        position = int(np.argmax(values.mask.ravel()))
        raise InvalidId(f"{field}[{position}] is masked", field=field, position=position)
    values = _listed(values, field)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        ids = _from_integers(values, field)
    elif (
        isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)) or _scalar(values)
    ):
        raise InvalidId(f"{field} must be a list of integers or of strings", field=field)
    else:
        items = values.tolist() if isinstance(values, np.ndarray) else values
        if all(isinstance(item, str) for item in items):
            ids = _from_strings(list(map(str.__str__, items)), field)
        else:
            for position, item in enumerate(items):
                if isinstance(item, bool) or not isinstance(item, (int, np.integer)):
                    raise InvalidId(
                        f"{field}[{position}] is {shown(item)}; ids are all integers or all strings",
                        field=field,
                        position=position,
                    )
                if not 0 <= item <= MAX_U64:
                    raise InvalidId(
                        f"{field}[{position}] must lie in 0 … 2^64 - 1",
                        field=field,
                        position=position,
                        limit=MAX_U64,
                    )
            ids = _from_integers(np.array([int(i) for i in items], dtype=np.uint64), field)
    if unique and len(ids):
        _refuse_duplicates(ids, field)
    return ids


def keys_of(values: Iterable[str]) -> U64:
    """Index keys of string ids."""
    digests = b"".join(blake2b(v.encode(), digest_size=8).digest() for v in values)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _listed(values: object, field: str) -> object:
    """A column of Arrow, Polars or pandas as a list; anything else as it is."""
    if not isinstance(values, (Sequence, np.ndarray, np.generic)):
        for method in ("to_pylist", "to_list", "tolist"):
            if hasattr(values, method):
                try:
                    return getattr(values, method)()
                except UnicodeDecodeError as error:
                    position = not_text(values)
                    raise InvalidId(
                        f"{field}[{position}] is not UTF-8", field=field, position=position
                    ) from error
    return values


def _scalar(values: object) -> bool:
    return isinstance(values, np.ndarray) and values.ndim == 0


def _from_integers(values: npt.NDArray[Any], field: str) -> Ids:
    if values.ndim != 1:
        raise InvalidId(f"{field} must have one dimension", field=field)
    if values.dtype.kind == "i" and len(values) and int(values.min()) < 0:
        position = int(np.argmin(values))
        raise InvalidId(
            f"{field}[{position}] must lie in 0 … 2^64 - 1", field=field, position=position, limit=MAX_U64
        )
    array = np.ascontiguousarray(values, dtype=np.uint64)
    return Ids("u64", array, array)


def _from_strings(items: Sequence[str], field: str) -> Ids:
    for position, item in enumerate(items):
        try:
            size = len(item.encode())
        except UnicodeEncodeError as error:
            raise InvalidId(f"{field}[{position}] is not UTF-8", field=field, position=position) from error
        if not 1 <= size <= MAX_ID_BYTES:
            raise InvalidId(
                f"{field}[{position}] must have 1 to {MAX_ID_BYTES} bytes of UTF-8, not {size}",
                field=field,
                position=position,
                limit=MAX_ID_BYTES,
            )
    values = np.empty(len(items), dtype=object)
    values[:] = items
    return Ids("string", values, keys_of(items))


def _refuse_duplicates(ids: Ids, field: str) -> None:
    seen: dict[Any, int] = {}
    if ids.kind == "u64":
        order = np.argsort(ids.values, kind="stable")
        twice = np.flatnonzero(ids.values[order][1:] == ids.values[order][:-1])
        if not len(twice):
            return
        position, value = int(order[twice[0] + 1]), int(ids.values[order[twice[0]]])
    else:
        for position, value in enumerate(ids.values):
            if seen.setdefault(value, position) != position:
                break
        else:
            return
    raise InvalidId(
        f"{field}[{position}]: id {value!r} is given twice in one request", field=field, position=position
    )


def build_filter(keys: U64) -> npt.NDArray[np.uint8]:
    """A Bloom filter over keys: about 1 % false positives at 10 bits a key (Bloom, CACM 1970)."""
    bits = max(64, -(-len(keys) * FILTER_BITS_A_KEY // 512) * 512)
    table = np.zeros(bits, dtype=np.bool_)
    for positions in _filter_positions(keys, bits):
        table[positions] = True
    return np.packbits(table, bitorder="little")


def may_contain(table: npt.NDArray[np.uint8], keys: U64) -> npt.NDArray[np.bool_]:
    """bool[n]: False where a key is certainly absent."""
    found = np.ones(len(keys), dtype=np.bool_)
    for positions in _filter_positions(keys, len(table) * 8):
        found &= (table[positions >> np.uint64(3)] >> (positions & np.uint64(7)).astype(np.uint8)) & 1 == 1
    return found


def _filter_positions(keys: U64, bits: int) -> Iterable[U64]:
    with np.errstate(over="ignore"):
        first = _mix(keys)
        step = _mix(first ^ np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
        for i in range(FILTER_HASHES):
            yield (first + np.uint64(i) * step) % np.uint64(bits)


def _mix(x: U64) -> U64:
    """splitmix64's finaliser (Steele et al., OOPSLA 2014): u64 ids are rarely random themselves."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
