"""Values of attributes: from what a caller gives to what is stored and compared, and back.

A number is kept as a *key*, a u64 in the order of the values: an int or the milliseconds of a datetime
with its sign bit turned, the bits of a float likewise, a uint and a bool as they are. A string is kept as
its UTF-8 bytes and a UUID as its sixteen, both in the order of bytes. So whatever the type, less is less.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

import numpy as np
import numpy.typing as npt

from vecstore.rows.texts import TextArray
from vecstore.types import U64, ScalarType

Objects = npt.NDArray[np.object_]
Elements = U64 | Objects  # keys, or bytes
Key = int | bytes

SIGN: Final = 1 << 63
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_LEAST_MS: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MS
_GREATEST_MS: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MS
_BEYOND_MICROSECONDS: Final = re.compile(r"[.,]\d{6}\d*[1-9]")  # which `fromisoformat` leaves out
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
TEXT: Final = frozenset({"string", "uuid"})
WORDS: Final[dict[ScalarType, str]] = {
    "string": "a string",
    "int": "an integer from -2^63 to 2^63 - 1",
    "uint": "an integer from 0 to 2^64 - 1",
    "float": "a finite number",
    "bool": "true or false",
    "datetime": "an ISO 8601 date and time",
    "uuid": "a UUID as 12345678-9abc-def0-1234-56789abcdef0",
}


def is_text(kind: ScalarType) -> bool:
    """Whether elements are bytes rather than keys."""
    return kind in TEXT


def key_of(value: Any, kind: ScalarType) -> Key:
    """The key or the bytes of one value. `ValueError` if it is not of that type."""
    return _KEYS[kind](value)


def at_most(value: Any, kind: ScalarType) -> tuple[Key, bool]:
    """The key of the greatest value that is kept and not above this one, and whether they are equal.

    As `key_of`, for constants that are compared and not kept: microseconds of a datetime, and an integer that
    no float is.
    """
    if kind == "datetime":
        return _instant(value)
    key = key_of(value, kind)
    if kind == "float" and _float_value(int(key)) != value:
        below = float(value) if float(value) < value else math.nextafter(float(value), -math.inf)
        return key_of(below, kind), False
    return key, True


def both_zeros(key: Key) -> tuple[Key, ...]:
    """The keys of the values of a float that are equal to one: of a zero both."""
    return (SIGN - 1, SIGN) if key in (SIGN - 1, SIGN) else (key,)


def kind_of(value: Any) -> ScalarType | None:
    """The type of a value; None for one of no type that is kept."""
    value = _plain(value)
    if isinstance(value, np.datetime64):
        return "datetime"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    if isinstance(value, str):
        return "string"
    if isinstance(value, date):
        return "datetime"
    return "uuid" if isinstance(value, UUID) else None


def spoken(value: Any) -> Any:
    """A value as JSON has it: dates and UUIDs as strings, of a list or an array a list.

    `ValueError` for what is of no type that is kept, or no value at all, as NaN and NaT: JSON would make a
    string or null of it.
    """
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return [_spoken(one) for one in value]
    return _spoken(value)


def constant(value: Any) -> Any:
    """As `spoken`, of a value that is compared and not kept: a date with all that it tells."""
    found = spoken(value)
    if kind_of(value) != "datetime" or at_most(value, "datetime")[1]:
        return found
    value = _plain(value)
    return f"{np.datetime_as_string(value)}Z" if isinstance(value, np.datetime64) else value.isoformat()


def _spoken(value: Any) -> Any:
    kind = kind_of(value)
    if kind is None:
        raise ValueError(value)
    return int(value) if kind == "int" else value_of(key_of(value, kind), kind)


def listed(values: npt.NDArray[Any]) -> list[Any]:
    """The values of an array; dates as they are, as `tolist` makes integers of nanoseconds."""
    return list(values) if values.dtype.kind == "M" else cast(list[Any], values.tolist())


def shown(value: object) -> str:
    """A value as an error tells it, whatever it is."""
    try:
        text = repr(_plain(value))
    except (ValueError, RecursionError):  # of more digits or deeper than Python writes
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 64 else text[:60] + " …"


def value_of(key: Key, kind: ScalarType) -> Any:
    """The value of a key, as JSON has it: dates and UUIDs are strings."""
    return _VALUES[kind](key)


def values_of(elements: Elements | TextArray, kind: ScalarType) -> list[Any]:
    """As `value_of`, of many."""
    if not isinstance(elements, TextArray):
        if kind == "int":
            return (elements ^ np.uint64(SIGN)).view(np.int64).tolist()  # type: ignore[no-any-return]
        if kind == "float":
            return floats_of(elements).tolist()  # type: ignore[no-any-return,arg-type]
    if kind == "uint":
        return elements.tolist()
    make = _VALUES[kind]
    return [make(key) for key in elements.tolist()]


def keys_of(values: Sequence[Any] | npt.NDArray[Any], kind: ScalarType) -> Elements:
    """Keys or bytes of many values of one type.

    Raises
    ------
    BadValue
        Naming the position of the first that is not of that type.
    """
    if isinstance(values, np.ndarray):
        found = _from_array(values, kind)
        if found is not None:
            return found
        values = listed(values)
    try:
        fast = _FAST.get(kind)
        if fast is not None:
            quick = fast(values)
            if quick is not None:
                return quick
    except (OverflowError, ValueError):
        pass  # the loop below says which value it is
    make = _KEYS[kind]
    out: list[Key] = []
    for position, value in enumerate(values):
        try:
            out.append(make(value))
        except (ValueError, TypeError, OverflowError) as error:
            raise BadValue(position, value) from error
    if is_text(kind):
        texts = np.empty(len(out), dtype=object)
        texts[:] = out
        return texts
    return np.array(out, dtype=np.uint64)


class BadValue(Exception):
    """A value of another type; for the caller, who knows attribute and row, to name."""

    def __init__(self, position: int, value: object) -> None:
        super().__init__(position, value)
        self.position = position
        self.value = value


# -- one value -----------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, np.datetime64):
        return value  # nanoseconds would become an integer
    if isinstance(value, np.floating):
        return float(value)  # of a long double, `item` is one too
    return value.item() if isinstance(value, np.generic) else value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _int_key(value: Any) -> int:
    value = _plain(value)
    if not _is_int(value) or not -SIGN <= value < SIGN:
        raise ValueError(value)
    return int(value) + SIGN


def _uint_key(value: Any) -> int:
    value = _plain(value)
    if not _is_int(value) or not 0 <= value < 1 << 64:
        raise ValueError(value)
    return int(value)


def _float_key(value: Any) -> int:
    value = _plain(value)
    if not (_is_int(value) or isinstance(value, float)):
        raise ValueError(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    bits: int = struct.unpack("<Q", struct.pack("<d", number))[0]
    return ~bits & (1 << 64) - 1 if bits & SIGN else bits | SIGN


def _bool_key(value: Any) -> int:
    value = _plain(value)
    if type(value) is not bool:
        raise ValueError(value)
    return int(value)


def _string_key(value: Any) -> bytes:
    value = _plain(value)
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004  # the caller words it
    return value.encode()  # not what `str` makes of a member of an enumeration


def _milliseconds(values: Any) -> Any:
    """A datetime64 or an array of them in milliseconds. `ValueError` for NaT, and for a year beyond 9999."""
    years = values.astype("datetime64[Y]").astype(np.int64) + 1970
    if np.isnat(values).any() or not ((years >= MINYEAR) & (years <= MAXYEAR)).all():
        raise ValueError(values)
    return values.astype("datetime64[ms]")


def _datetime_key(value: Any) -> int:
    return _instant(value)[0]


def _instant(value: Any) -> tuple[int, bool]:
    """The key of a datetime, and whether nothing of it was cut."""
    value, exact = _plain(value), True
    if isinstance(value, np.datetime64):
        whole = _milliseconds(value)
        value, exact = whole.item(), bool(whole == value)
    if isinstance(value, str):
        if len(value) > 64:
            raise ValueError(value)
        exact = _BEYOND_MICROSECONDS.search(value) is None
        value = datetime.fromisoformat(value)
    elif not isinstance(value, date):
        raise ValueError(value)  # noqa: TRY004
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    since = value - EPOCH
    milliseconds: int = since // _MS
    if not _LEAST_MS <= milliseconds <= _GREATEST_MS:
        raise ValueError(value)  # by its offset in a year that has no form to be read back in
    return milliseconds + SIGN, exact and milliseconds * _MS == since


def _uuid_key(value: Any) -> bytes:
    if isinstance(value, str):
        if _UUID.fullmatch(value) is None:  # `UUID` takes a prefix, braces, and dashes wherever they are
            raise ValueError(value)
        value = UUID(value)
    if not isinstance(value, UUID):
        raise ValueError(value)  # noqa: TRY004
    return value.bytes


_KEYS: Final[dict[ScalarType, Callable[[Any], Key]]] = {
    "string": _string_key,
    "int": _int_key,
    "uint": _uint_key,
    "float": _float_key,
    "bool": _bool_key,
    "datetime": _datetime_key,
    "uuid": _uuid_key,
}


def _float_value(key: int) -> float:
    bits = key & ~SIGN if key & SIGN else ~key & (1 << 64) - 1
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    return float(value)


def _datetime_value(key: int) -> str:
    value = EPOCH + (key - SIGN) * _MS
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_VALUES: Final[dict[ScalarType, Callable[[Any], Any]]] = {
    "string": bytes.decode,
    "int": lambda key: int(key) - SIGN,
    "uint": int,
    "float": _float_value,
    "bool": bool,
    "datetime": _datetime_value,
    "uuid": lambda key: str(UUID(bytes=key)),
}


# -- many values ---------------------------------------------------------------------------


def floats_of(keys: U64) -> npt.NDArray[np.float64]:
    negative = keys < np.uint64(SIGN)
    return np.where(negative, ~keys, keys & np.uint64(SIGN - 1)).view(np.float64)


def _float_keys(values: npt.NDArray[np.float64]) -> U64 | None:
    if not np.isfinite(values).all():
        return None
    bits = values.view(np.uint64)
    return np.where(bits >= np.uint64(SIGN), ~bits, bits | np.uint64(SIGN))


def _turned(values: npt.NDArray[np.int64]) -> U64:
    return values.view(np.uint64) ^ np.uint64(SIGN)


def _types(values: Sequence[Any]) -> set[type]:
    return set(map(type, values))


def _fast_ints(values: Sequence[Any]) -> U64 | None:
    return _turned(np.array(values, dtype=np.int64)) if _types(values) <= {int} else None


def _fast_uints(values: Sequence[Any]) -> U64 | None:
    return np.array(values, dtype=np.uint64) if _types(values) <= {int} else None


def _fast_floats(values: Sequence[Any]) -> U64 | None:
    return _float_keys(np.array(values, dtype=np.float64)) if _types(values) <= {int, float} else None


def _fast_bools(values: Sequence[Any]) -> U64 | None:
    return np.array(values, dtype=np.bool_).astype(np.uint64) if _types(values) <= {bool} else None


_FAST: Final[dict[ScalarType, Callable[[Sequence[Any]], U64 | None]]] = {
    "int": _fast_ints,
    "uint": _fast_uints,
    "float": _fast_floats,
    "bool": _fast_bools,
}


def _from_array(values: npt.NDArray[Any], kind: ScalarType) -> U64 | None:
    """Keys of an array whose type fits; None leaves it to the values one by one."""
    code = values.dtype.kind
    if kind == "bool" and code == "b":
        return values.astype(np.uint64)
    if kind == "float" and code in "fiu":
        return _float_keys(np.ascontiguousarray(values, dtype=np.float64))
    if kind == "int" and code in "iu" and (code == "i" or not len(values) or values.max() < SIGN):
        return _turned(np.ascontiguousarray(values, dtype=np.int64))
    if kind == "uint" and code in "iu" and (code == "u" or not len(values) or values.min() >= 0):
        return np.ascontiguousarray(values, dtype=np.uint64)
    if kind == "datetime" and code == "M":
        with suppress(ValueError):
            return _turned(_milliseconds(values).astype(np.int64))
    return None
