"""Counts, sums, extremes and means of rows by groups, a column at a time.

A part hands over the values of some of its rows; what comes out does not depend on which parts rows lie in,
nor on their order: sums are exact, those of floats are rounded once. Equal values are one group, so both
zeros of a float are; null is a group of its own. Imports allowance, columns, values, errors,
limits, types, deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from vecstore import deadline
from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_DISTINCT, MAX_GROUPS
from vecstore.rows.allowance import Allowance
from vecstore.rows.columns import ColumnReader
from vecstore.rows.schema import element_type
from vecstore.rows.values import SIGN, Elements, Key, floats_of, is_text, value_of
from vecstore.types import U64, Aggregation, AttributeType, ScalarType

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]

STEP: Final = 1 << 20  # rows that are handed over at once, at most: sums of so many are exact in a float64
VALUE_BYTES: Final = 32 << 20  # of one attribute that are handed over at once, about
SHORT: Final = 32  # bytes of a text that is remembered itself; of a longer one its digest is
NAMED: Final = 128  # bytes that it takes to remember one
RESULT_BYTES: Final = 64  # of each value that a group tells, beside its name and the text that it is
NAMED_AT_ONCE: Final = 1 << 15  # texts that are remembered between two looks at the deadline
HALF: Final = 32  # bits of a key that are summed at a time
MANTISSA: Final = 53  # bits of a float's
LOW: Final = 27  # of these, summed apart from the others
UNIT: Final = 1 << 1126  # sums of floats are integers over this: the least float is 2^-1074
DENSE: Final = 4  # values a row, up to which a table of all possible ones is made rather than sorting them


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """The values of one attribute in some rows.

    Attributes
    ----------
    null
        bool[n].
    ranks
        u64[rows that are not null]: keys, the same for equal values, or places in ``texts``.
    texts
        object[m] of bytes, ascending; None if values are numbers.
    """

    kind: ScalarType
    null: Bools
    ranks: U64
    texts: Elements | None = None

    def key(self, rank: int) -> Key:
        return rank if self.texts is None else self.texts[rank]

    def keys(self, rows: I64) -> list[Key | None]:
        """Of some of the rows; None where they are null."""
        place = np.cumsum(~self.null) - 1  # of each row among those that are not null
        return [None if self.null[row] else self.key(int(self.ranks[place[row]])) for row in rows.tolist()]


def values_in(column: ColumnReader | None, rows: I64, kind: AttributeType) -> Values:
    """Of rows of a part, ascending, of an attribute with one value a row; None: it has no such column."""
    scalar = element_type(kind)
    if column is None:
        return Values(
            scalar,
            np.ones(len(rows), dtype=np.bool_),
            np.empty(0, dtype=np.uint64),
            np.empty(0, dtype=object) if is_text(scalar) else None,
        )
    null = column.nulls_among(rows)
    if is_text(scalar) and column.entry.form == "plain":
        texts, at = np.unique(column.elements_of(rows[~null]), return_inverse=True)
        return Values(scalar, null, at.astype(np.uint64), texts.astype(object))
    ranks = column.ranks(_run(rows[~null] if column.entry.nulls else rows))
    if not is_text(scalar):
        return Values(scalar, null, ranks)
    codes, places = _compact(ranks)
    return Values(scalar, null, places.astype(np.uint64), column.texts_of(codes))


def presence_in(column: ColumnReader | None, rows: I64, kind: AttributeType) -> Values:
    """As `values_in`, to tell only which rows have a value."""
    found = values_in(None, rows, kind)
    return found if column is None else replace(found, null=column.nulls_among(rows))


def rows_at_once(columns: Iterable[ColumnReader | None]) -> int:
    """How many rows are handed over at once: few where their texts are long."""
    found = [column.rows_in(VALUE_BYTES) for column in columns if column is not None]
    return min([STEP, *(rows for rows in found if rows is not None)])


def _run(rows: I64) -> I64 | slice:
    """Rows, ascending, as a slice if they follow one another: these are read many times as fast."""
    if len(rows) and int(rows[-1]) - int(rows[0]) + 1 == len(rows):
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _compact(values: U64) -> tuple[U64, I64]:
    """The distinct ones, ascending, and of each its place among them."""
    if not len(values):
        return values, np.empty(0, dtype=np.int64)
    low, high = int(values.min()), int(values.max())
    if high - low > DENSE * len(values):
        distinct, places = np.unique(values, return_inverse=True)
        return distinct, places.astype(np.int64)
    offsets = (values - np.uint64(low)).astype(np.int64)
    present = np.zeros(high - low + 1, dtype=np.bool_)
    present[offsets] = True
    places = np.cumsum(present) - 1
    return np.flatnonzero(present).astype(np.uint64) + np.uint64(low), places[offsets]


class Aggregator:
    """Takes rows, and tells of all that it has taken.

    Parameters
    ----------
    asked
        What to compute, by label, and of which type its attribute is; None where there is none.
    group_by
        The types of the attributes that rows are grouped by.
    allowance
        For groups, as they will be told, and for the texts that are held.
    """

    def __init__(
        self,
        asked: Mapping[str, tuple[Aggregation, AttributeType | None]],
        group_by: Mapping[str, AttributeType],
        allowance: Allowance,
    ) -> None:
        self._group_by = [element_type(kind) for kind in group_by.values()]
        self._group_bytes = sum(len(msgspec.json.encode(name)) + RESULT_BYTES for name in (*group_by, *asked))
        self._groups: dict[tuple[Key | None, ...], int] = {}
        self._folds = {label: _fold(label, one, kind, allowance) for label, (one, kind) in asked.items()}
        self._asked = {label: one.attribute for label, (one, _) in asked.items()}
        self._allowance = allowance
        if not group_by:
            self._groups[()] = 0

    def add(self, n: int, groups: Sequence[Values], values: Mapping[str, Values]) -> None:
        """Take ``n`` rows, at most `STEP`.

        Parameters
        ----------
        groups
            Of the attributes that rows are grouped by.
        values
            Of the attributes of which something is computed.

        Raises
        ------
        InvalidArgument
            There are more groups, or distinct values, than are kept, or their texts are too long.
        DeadlineExceeded
            Nobody waits any more; what was taken is of no use then.
        """
        group = self._group(n, groups)
        for label, fold in self._folds.items():
            deadline.check()
            attribute = self._asked[label]
            fold.add(group, None if attribute is None else values[attribute], len(self._groups))

    def answer(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The values of each group, as JSON has them, and what was computed of it; ascending, null last."""
        results = {label: fold.answer(len(self._groups)) for label, fold in self._folds.items()}
        order = sorted(self._groups.items(), key=lambda item: [(key is None, key) for key in item[0]])
        return [
            (
                tuple(
                    None if key is None else value_of(key, kind)
                    for key, kind in zip(keys, self._group_by, strict=True)
                ),
                {label: found[number] for label, found in results.items()},
            )
            for keys, number in order
        ]

    def _group(self, n: int, groups: Sequence[Values]) -> I64:
        """i64[n]: the number of each row's group."""
        if not groups:
            return np.zeros(n, dtype=np.int64)
        combined = np.zeros(n, dtype=np.int64)
        count = 1
        for one in groups:
            distinct, inside = _compact(one.ranks)
            places = np.zeros(n, dtype=np.int64)  # 0 is null
            places[~one.null] = inside + 1
            kept, combined = _compact((combined * (len(distinct) + 1) + places).astype(np.uint64))
            count = len(kept)
        if count > MAX_GROUPS:
            raise self._too_many()
        known = len(self._groups)
        first = np.empty(count, dtype=np.int64)
        first[combined[::-1]] = np.arange(n - 1, -1, -1)
        columns = [one.keys(first) for one in groups]
        numbers = np.empty(count, dtype=np.int64)
        for i, keys in enumerate(zip(*columns, strict=True)):
            numbers[i] = self._groups.setdefault(keys, len(self._groups))
        if len(self._groups) > MAX_GROUPS:
            raise self._too_many()
        new = islice(self._groups, known, None)
        texts = sum(_text_bytes(key) for keys in new for key in keys)
        self._allowance.take(texts + (len(self._groups) - known) * self._group_bytes, "group_by")
        return numbers[combined]

    @staticmethod
    def _too_many() -> InvalidArgument:
        return InvalidArgument(
            f"group_by makes more than {MAX_GROUPS} groups; narrow them by a filter",
            field="group_by",
            limit=MAX_GROUPS,
        )


# -- what is computed ----------------------------------------------------------------------


class _Fold(Protocol):
    """One result a group."""

    def add(self, group: I64, values: Values | None, groups: int) -> None:
        """Take rows: the number of each row's group, and its values, if the result is of any."""

    def answer(self, groups: int) -> list[Any]:
        """As JSON has it, of the groups 0 to before ``groups``."""


def _fold(label: str, one: Aggregation, kind: AttributeType | None, allowance: Allowance) -> _Fold:
    if one.function == "Count" or kind is None:
        return _Count()
    scalar = element_type(kind)
    if one.function in ("Min", "Max"):
        return _Extreme(scalar, allowance, greatest=one.function == "Max")
    if one.function == "CountDistinct":
        return _Distinct(label, allowance)
    mean = one.function == "Avg"
    return _FloatSum(label, mean=mean) if scalar == "float" else _IntegerSum(scalar, mean=mean)


def _with_value(group: I64, values: Values) -> I64:
    return group if len(values.ranks) == len(group) else group[~values.null]


def _text_bytes(key: Key | None) -> int:
    return len(key) if isinstance(key, bytes) else 0


def _grown(given: npt.NDArray[Any], size: int, fill: int) -> npt.NDArray[Any]:
    if len(given) >= size:
        return given
    more = np.full(max(size, 2 * len(given)), fill, dtype=given.dtype)
    more[: len(given)] = given
    return more


class _Count:
    """Rows, or rows with a value."""

    def __init__(self) -> None:
        self.counts = np.zeros(1, dtype=np.int64)

    def add(self, group: I64, values: Values | None, groups: int) -> None:
        group = group if values is None else _with_value(group, values)
        self.counts = _grown(self.counts, groups, 0)
        found = np.bincount(group, minlength=groups)
        self.counts[: len(found)] += found

    def answer(self, groups: int) -> list[int]:
        return _grown(self.counts, groups, 0)[:groups].tolist()  # type: ignore[no-any-return]


class _IntegerSum:
    """As Python's integers, which do not overflow; or the mean, rounded once."""

    def __init__(self, kind: ScalarType, *, mean: bool) -> None:
        self._offset = SIGN if kind == "int" else 0  # a key is so much more than its value
        self._mean = mean
        self._count = _Count()
        self._sums: dict[int, int] = {}

    def add(self, group: I64, values: Values | None, groups: int) -> None:
        assert values is not None  # a sum is of an attribute
        self._count.add(group, values, groups)
        group, keys = _with_value(group, values), values.ranks
        low_half, high_half = keys & np.uint64((1 << HALF) - 1), keys >> np.uint64(HALF)
        if groups == 1:
            self._sums[0] = self._sums.get(0, 0) + (int(high_half.sum()) << HALF) + int(low_half.sum())
            return
        low = np.bincount(group, weights=low_half.astype(np.float64))
        high = np.bincount(group, weights=high_half.astype(np.float64))
        for number in np.flatnonzero((low != 0) | (high != 0)).tolist():
            self._sums[number] = self._sums.get(number, 0) + (int(high[number]) << HALF) + int(low[number])

    def answer(self, groups: int) -> list[Any]:
        counts = self._count.answer(groups)
        sums = [self._sums.get(i, 0) - self._offset * count for i, count in enumerate(counts)]
        if not self._mean:
            return sums
        return [None if not count else one / count for one, count in zip(sums, counts, strict=True)]


class _FloatSum:
    """Mantissas summed by group and exponent, as integers: exact until the end."""

    def __init__(self, label: str, *, mean: bool) -> None:
        self._label = label
        self._mean = mean
        self._count = _Count()
        self._sums: dict[int, int] = {}

    def add(self, group: I64, values: Values | None, groups: int) -> None:
        assert values is not None  # as above
        self._count.add(group, values, groups)
        if not len(values.ranks):
            return
        fractions, exponents = np.frexp(floats_of(values.ranks))
        mantissas = np.ldexp(fractions, MANTISSA)
        high = np.floor(np.ldexp(mantissas, -LOW))
        low = mantissas - np.ldexp(high, LOW)
        least = int(exponents.min())
        width = int(exponents.max()) - least + 1
        bins, places = _compact((_with_value(group, values) * width + (exponents - least)).astype(np.uint64))
        lows, highs = np.bincount(places, weights=low), np.bincount(places, weights=high)
        for one, low_sum, high_sum in zip(bins.tolist(), lows.tolist(), highs.tolist(), strict=True):
            number, exponent = divmod(one, width)
            total = (int(high_sum) << LOW) + int(low_sum)
            # The least exponent of a float is -1073, so that nothing is shifted out.
            self._sums[number] = self._sums.get(number, 0) + (total << (exponent + least + 1073))

    def answer(self, groups: int) -> list[Any]:
        counts = self._count.answer(groups)
        return [self._rounded(self._sums.get(i, 0), count) for i, count in enumerate(counts)]

    def _rounded(self, total: int, count: int) -> float | None:
        if not count and self._mean:
            return None
        try:
            return total / (UNIT * count if self._mean else UNIT)
        except OverflowError as error:
            raise InvalidArgument(
                f"aggregate_by.{self._label} is a sum beyond what a float can hold",
                field="aggregate_by",
                at=f"aggregate_by.{self._label}",
            ) from error


class _Extreme:
    """The least value, or the greatest."""

    def __init__(self, kind: ScalarType, allowance: Allowance, *, greatest: bool) -> None:
        self._kind = kind
        self._allowance = allowance
        self._greatest = greatest
        self._found: dict[int, Key] = {}

    def add(self, group: I64, values: Values | None, groups: int) -> None:
        assert values is not None  # an extreme is of an attribute
        group = _with_value(group, values)
        if not len(group):
            return
        worst = 0 if self._greatest else (1 << 64) - 1
        best = np.full(groups, worst, dtype=np.uint64)
        if groups == 1:
            best[0] = values.ranks.max() if self._greatest else values.ranks.min()
        else:
            (np.maximum if self._greatest else np.minimum).at(best, group, values.ranks)
        for number in np.flatnonzero(np.bincount(group)).tolist():
            key, known = values.key(int(best[number])), self._found.get(number)
            if known is None or (key > known if self._greatest else key < known):  # type: ignore[operator]
                self._found[number] = key
                if isinstance(key, bytes):
                    self._allowance.take(len(key) - _text_bytes(known), "aggregate_by")

    def answer(self, groups: int) -> list[Any]:
        return [None if i not in self._found else value_of(self._found[i], self._kind) for i in range(groups)]


class _Distinct:
    """How many distinct values: pairs of a group and a value, each once."""

    def __init__(self, label: str, allowance: Allowance) -> None:
        self._label = label
        self._allowance = allowance
        self._names: dict[bytes, int] = {}
        self._kept: list[tuple[I64, U64]] = []
        self._size = 0
        self._settled = 0

    def add(self, group: I64, values: Values | None, groups: int) -> None:  # noqa: ARG002
        assert values is not None  # as above
        ranks = values.ranks
        if values.texts is not None:
            names, known = self._names, len(self._names)
            numbers: list[int] = []
            for start in range(0, len(values.texts), NAMED_AT_ONCE):
                deadline.check()
                some = values.texts[start : start + NAMED_AT_ONCE].tolist()
                numbers += [names.setdefault(_name_of(text), len(names)) for text in some]
            self._allowance.take(NAMED * (len(names) - known), "aggregate_by")
            ranks = np.array(numbers, dtype=np.uint64)[ranks.astype(np.int64)] if len(ranks) else ranks
        self._keep(_pairs(_with_value(group, values), ranks))
        if self._size > max(2 * self._settled, MAX_DISTINCT):
            self._settle()

    def answer(self, groups: int) -> list[int]:
        if len(self._kept) != 1:
            self._settle()
        self._allowance.take(-NAMED * len(self._names), "aggregate_by")
        self._names.clear()
        return np.bincount(self._kept[0][0], minlength=groups).tolist()  # type: ignore[no-any-return]

    def _keep(self, pairs: tuple[I64, U64]) -> None:
        self._kept.append(pairs)
        self._size += len(pairs[0])

    def _settle(self) -> None:
        kept, self._kept, self._size = self._kept, [], 0
        none = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64))
        group, ranks = (np.concatenate(column) for column in zip(none, *kept, strict=True))
        self._keep(_pairs(group, ranks))
        self._settled = self._size
        if self._size > MAX_DISTINCT or len(self._names) > MAX_DISTINCT:
            raise InvalidArgument(
                f"aggregate_by.{self._label} counts more than {MAX_DISTINCT} distinct values",
                field="aggregate_by",
                at=f"aggregate_by.{self._label}",
                limit=MAX_DISTINCT,
            )


def _name_of(text: bytes) -> bytes:
    """The text, or a digest of one byte more than any text that is not digested."""
    return text if len(text) <= SHORT else blake2b(text, digest_size=SHORT + 1).digest()


def _pairs(group: I64, ranks: U64) -> tuple[I64, U64]:
    """Each pair once."""
    if group.any():
        order = np.lexsort((ranks, group))
        group, ranks = group[order], ranks[order]
    else:  # by far the faster way; np.unique, which hashes, takes ten times as long
        ranks = np.sort(ranks)
    new = np.ones(len(group), dtype=np.bool_)
    new[1:] = (group[1:] != group[:-1]) | (ranks[1:] != ranks[:-1])
    return group[new], ranks[new]
