from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from tests.rows.filters.oracle import TYPES, matches, random_filter, random_rows
from vecstore.manifest.model import Attribute
from vecstore.rows.attributes import Column, parse_attributes
from vecstore.rows.bits import RowBits
from vecstore.rows.columns import ColumnReader
from vecstore.rows.encoding import encode_columns
from vecstore.rows.filters import bind, evaluate, filter_bytes, parse_filter
from vecstore.rows.filters.binding import Between, Matching
from vecstore.rows.filters.patterns import Pattern
from vecstore.rows.schema import Spec

SCHEMA = {name: Attribute(i, kind) for i, (name, kind) in enumerate(TYPES.items())}  # type: ignore[arg-type]


class Memory:
    """The data of columns in memory."""

    def __init__(self, data: bytes) -> None:
        self.kept: Any = {}
        self.key = "memory"
        self._data = np.frombuffer(data, dtype=np.uint8)

    def read(self, start: int, end: int) -> Any:
        assert 0 <= start <= end <= len(self._data)
        return self._data[start:end]

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        pass


class Part:
    """Columns as a part holds them; its ids are its row numbers."""

    def __init__(self, columns: dict[str, Column], n: int) -> None:
        data, self.entries = encode_columns(columns)
        self.n = n
        self.memory = Memory(data)

    def column(self, name: str, attribute: int) -> ColumnReader | None:
        return ColumnReader(name, self.entries[name], self.n, self.memory) if name in self.entries else None

    def ids_equal_to(self, keys: tuple[int | bytes, ...]) -> RowBits:
        return self.of(key for key in keys if isinstance(key, int) and key < self.n)

    def ids_between(self, test: Between) -> RowBits:
        low = test.low if isinstance(test.low, int) else 0
        high = test.high if isinstance(test.high, int) else self.n
        return self.of(
            range(low + (not test.low_in and test.low is not None), min(self.n, high + test.high_in))
        )

    def ids_matching(self, test: Matching) -> RowBits:
        raise AssertionError("integers match no pattern")

    def of(self, rows: Iterable[int]) -> RowBits:
        return RowBits.of(np.array(list(rows), dtype=np.uint32), self.n)


def part_of(rows: list[dict[str, Any]]) -> Part:
    specs = {name: Spec(kind) for name, kind in TYPES.items()}  # type: ignore[arg-type]
    return Part(parse_attributes(rows, len(rows), {}, specs), len(rows))


@pytest.mark.parametrize("seed", range(10))
def test_random_filters_match_what_they_match_row_by_row(seed: int) -> None:
    """5,000 trees in all, over parts of which some have so few rows that columns are missing."""
    rng = random.Random(seed)
    n = rng.choice([1, 3, 40, 300])
    rows = random_rows(rng, n)
    part = part_of(rows)
    part.memory.kept = {} if seed % 2 else None  # of a mapped part, and of a distant one
    named = [{**row, "id": i} for i, row in enumerate(rows)]
    for _ in range(500):
        f = random_filter(rng, list(range(n)))
        found = evaluate(bind(parse_filter(filter_bytes(f)), SCHEMA, "u64"), part)
        assert list(found) == [i for i in range(n) if matches(f, named[i])], f


def test_the_columns_of_that_test_have_every_form() -> None:
    forms = {(e.form, e.lookup) for e in part_of(random_rows(random.Random(0), 300)).entries.values()}
    assert forms == {
        ("dictionary", "bitmaps"),
        ("dictionary", "postings"),
        ("plain", "sorted"),
    }


def test_ranges_end_where_they_should_in_a_column_of_many_values_some_of_them_equal() -> None:
    rng = np.random.default_rng(2)
    values = rng.integers(0, 4_000, size=5_000) * 3
    schema = {"n": Attribute(0, "int")}
    data, entries = encode_columns(parse_attributes({"n": values}, 5_000, schema, {}))
    part = Part({}, 5_000)
    part.entries, part.memory = entries, Memory(data)
    assert entries["n"].lookup == "sorted"
    for low in [-5, 0, 1, *rng.integers(0, 12_000, size=200).tolist(), 11_997, 20_000]:
        for operator, kept in (
            ("Lt", values < low),
            ("Lte", values <= low),
            ("Gt", values > low),
            ("Gte", values >= low),
            ("Eq", values == low),
        ):
            found = evaluate(bind(parse_filter(filter_bytes(["n", operator, low])), schema, "u64"), part)
            assert list(found) == np.flatnonzero(kept).tolist(), (operator, low)


@pytest.mark.parametrize("distant", [False, True])
def test_a_pattern_is_held_against_the_texts_of_rows_alone_that_other_conditions_leave(
    distant: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, left = 600, [3, 90, 91, 92, 300, 301, 598]
    texts = [None if i % 90 == 1 else f"{i // 2 % 7} of {i // 2}" for i in range(n)]
    arrays = [[f"a{i}", f"b{i}"] for i in range(n)]
    data, entries = encode_columns(parse_attributes({"s": texts, "l": arrays}, n, {}, {}))
    part = Part({}, n)
    part.entries, part.memory = entries, Memory(data)
    part.memory.kept = None if distant else {}
    schema = {"s": Attribute(0, "string"), "l": Attribute(1, "[]string")}
    tried: list[bytes] = []
    matches = Pattern.matches
    monkeypatch.setattr(Pattern, "matches", lambda self, text: tried.append(text) or matches(self, text))

    def found(f: Any) -> list[int]:
        tried.clear()
        return list(evaluate(bind(parse_filter(filter_bytes(f)), schema, "u64"), part))

    threes = {i for i, text in enumerate(texts) if text and text.startswith("3")}
    three, few = ["s", "Regex", "^3"], ["id", "In", left]
    there = {texts[i].encode() for i in left if texts[i]}
    for both, kept in (
        (["And", [three, few]], threes & set(left)),
        (["And", [few, ["s", "NotGlob", "[3]*"]]], set(left) - threes),
        (["And", [few, ["Not", ["Not", three]]]], threes & set(left)),
        (["And", [few, ["id", "Lte", 300], three]], {i for i in threes & set(left) if i <= 300}),
    ):
        assert found(both) == sorted(kept)
        assert 0 < len(tried) == len(set(tried)) <= len(there)
        assert set(tried) <= there
    assert found(["And", [three, ["id", "In", [1]]]]) == []
    assert found(["And", [three, ["id", "In", []]]]) == tried == []
    assert found(["And", [three, ["id", "Gte", 5]]]) == sorted(i for i in threes if i >= 5)
    assert len(tried) == entries["s"].distinct


@pytest.mark.parametrize("seed", range(4))
def test_values_are_read_as_they_were_given(seed: int) -> None:
    rng = random.Random(seed)
    rows = random_rows(rng, 200)
    part = part_of(rows)
    some = np.array(rng.sample(range(200), k=50))
    for name in TYPES:
        column = part.column(name, SCHEMA[name].id)
        assert column is not None
        assert repr(column.values(some)) == repr([rows[i][name] for i in some.tolist()])  # zeros have signs
        assert repr(column.values(np.arange(200))) == repr([row[name] for row in rows])
