"""Attributes from tables and data frames, and hits and pages as such: Arrow, pandas, Polars."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vecstore
from vecstore.api import Database
from vecstore.errors import InvalidArgument, InvalidAttribute, InvalidId, SchemaConflict

DIM = 4
ROWS = np.arange(12, dtype=np.float32).reshape(3, DIM)
WHEN = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
AT = "2024-05-06T07:08:09.123Z"


TABLE = pa.table(
    {
        "word": pa.array(["a", None, "ö"]),
        "n": pa.array([1, None, -(1 << 62)], pa.int64()),
        "u": pa.array([1, 2, (1 << 64) - 1], pa.uint64()),
        "x": pa.array([0.5, None, -0.0]),
        "good": pa.array([True, None, False]),
        "at": pa.array([WHEN, None, WHEN], pa.timestamp("us", "UTC")),
        "tags": pa.array([["a", "b"], [], None]),
    }
)
EXPECTED = [
    {"word": "a", "n": 1, "u": 1, "x": 0.5, "good": True, "at": AT, "tags": ["a", "b"]},
    {"word": None, "n": None, "u": 2, "x": None, "good": None, "at": None, "tags": []},
    {"word": "ö", "n": -(1 << 62), "u": (1 << 64) - 1, "x": 0.0, "good": False, "at": AT, "tags": None},
]
TYPES = {
    "word": "string", "n": "int", "u": "uint", "x": "float", "good": "bool", "at": "datetime",
    "tags": "[]string",
}  # fmt: skip


class Stream:
    """What has nothing but the protocol of a stream."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def exact_pandas(table: Any) -> Any:
    kinds = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame = table.to_pandas(types_mapper=kinds.get)
    frame.index = [7, 3, 9]  # no column
    return frame


class Once(Stream):
    """A stream that can be read once."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table, self._table = self._table, None
        return table.__arrow_c_stream__(requested_schema)


GIVEN: dict[str, Callable[[], Any]] = {
    "a table": lambda: TABLE,
    "a batch": lambda: TABLE.combine_chunks().to_batches()[0],
    "columns of Arrow": lambda: {name: TABLE.column(name) for name in TABLE.column_names},
    "arrays of Arrow": lambda: {name: TABLE.column(name).combine_chunks() for name in TABLE.column_names},
    "a stream": lambda: Stream(TABLE),
    "a stream read once": lambda: Once(TABLE),
    "columns read once": lambda: {name: Once(TABLE.column(name)) for name in TABLE.column_names},
    "a reader": lambda: TABLE.to_reader(),
    "Polars": lambda: pl.DataFrame(TABLE),
    "columns of Polars": lambda: {one.name: one for one in pl.DataFrame(TABLE)},
    "pandas": lambda: exact_pandas(TABLE),
    "columns of pandas": lambda: dict(exact_pandas(TABLE).items()),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_attributes_come_from_tables_and_data_frames(db: Database, kind: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    first = ns.insert(ROWS, [1, 2, 3], attributes=GIVEN[kind](), idempotency_key="k")
    assert ns.insert(ROWS, [1, 2, 3], attributes=GIVEN[kind](), idempotency_key="k") == first
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == TYPES
    assert [row.attributes for row in ns.scan(include=list(TYPES))] == EXPECTED


@pytest.mark.parametrize("kind", GIVEN)
def test_patches_take_tables_and_data_frames(db: Database, kind: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, [1, 2, 3], attributes={"word": ["x", "y", "z"], "other": [1, 2, 3]})
    first = ns.patch([1, 2, 3], GIVEN[kind](), idempotency_key="k")
    assert first.patched == 3
    expected = [{**row, "other": i} for i, row in enumerate(EXPECTED, 1)]
    assert [row.attributes for row in ns.scan(include=[*TYPES, "other"])] == expected
    assert ns.patch([1, 2, 3], GIVEN[kind](), idempotency_key="k") == first


def test_other_columns_of_pandas_and_numpy(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"key": "uuid"})
    key = UUID(int=5)
    frame = pd.DataFrame(
        {
            "kind": pd.Categorical(["x", "y", "x"]),
            "gap": [1.5, float("nan"), 2.0],  # which is how pandas has no value
            "day": [date(2024, 1, 2), None, date(1, 1, 1)],
            "key": [str(key), None, str(key)],
        }
    )
    columns = {
        **dict(frame.items()),
        "when": np.array(["2024-05-06T07:08:09.123456", "1969-12-31", "0001-01-01"], dtype="datetime64[us]"),
        "small": np.array([1, 2, 3], dtype=np.uint8),
        "strings": np.array(["a", "b", "c"]),
    }
    ns.insert(ROWS, [1, 2, 3], attributes=columns)
    assert [row.attributes for row in ns.scan(include=list(columns))][1:] == [
        {"kind": "y", "gap": None, "day": None, "key": None, "when": "1969-12-31T00:00:00.000Z", "small": 2,
         "strings": "b"},
        {"kind": "x", "gap": 2.0, "day": "0001-01-01T00:00:00.000Z", "key": str(key),
         "when": "0001-01-01T00:00:00.000Z", "small": 3, "strings": "c"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (pa.table({"deep": [{"a": 1}] * 3}), "deep"),
        (pa.table({"raw": [b"x"] * 3}), "raw"),
        (pd.DataFrame({"mixed": [1, "a", None]}), None),
        ({"mixed": pd.Series([1, "a", None])}, "mixed"),
        ({"month": pd.period_range("2024-01", periods=3, freq="M").to_series()}, "month"),
        (pd.DataFrame({"month": pd.period_range("2024-01", periods=3, freq="M")}), "month"),
        ({"runs": pa.RunEndEncodedArray.from_arrays([3], ["a"])}, "runs"),
        ({"far": pa.array([0, (1 << 62), None], pa.timestamp("s"))}, "far"),
        ({"far": pa.array([[], None, [-(1 << 63)]], pa.list_(pa.timestamp("s")))}, "far"),
        (pd.Series([1, 2, 3]), None),
        (pl.Series("a", [1, 2, 3]), None),
        (pa.array([1, 2, 3]), None),
        (pa.Table.from_arrays([pa.array([1] * 3)] * 2, ["a", "a"]), None),
    ],
)
def test_what_has_no_type_is_refused_by_name(db: Database, given: Any, named: str | None) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    with pytest.raises(InvalidAttribute) as caught:
        ns.insert(ROWS, attributes=given)
    assert caught.value.details["field"] == "attributes"
    assert caught.value.details.get("attribute") == named
    assert ns.stats().rows == 0


LISTS: dict[str, tuple[Any, list[Any]]] = {
    "[]string": (pa.list_(pa.string()), ["a"]),
    "[]int": (pa.large_list(pa.int8()), [-1]),
    "[]uint": (pa.list_(pa.uint64()), [7]),
    "[]float": (pa.list_(pa.float32()), [0.5]),
    "[]bool": (pa.list_(pa.bool_()), [True]),
    "[]datetime": (pa.list_(pa.timestamp("us", "UTC")), [AT]),
}


@pytest.mark.parametrize("how", ["a table", "columns", "Polars"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_column_of_empty_lists_has_the_type_of_the_column(db: Database, kind: str, how: str) -> None:
    arrow, later = LISTS[kind]
    ns = db.create_namespace("docs", DIM, "l2")
    table = pa.table({"some": pa.array([[], None, []], arrow), "none": pa.nulls(3, arrow)})
    given = {
        "a table": table,
        "columns": {name: table.column(name) for name in table.column_names},
        "Polars": pl.DataFrame(table),
    }[how]
    ns.insert(ROWS, [1, 2, 3], attributes=given)
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == {"some": kind}
    assert [row.attributes for row in ns.scan()] == [{"some": []}, {"some": None}, {"some": []}]
    ns.patch([2], {"some": [later]})
    ns.insert(ROWS, [4, 5, 6], attributes=given)  # into what is known by now
    assert [row.attributes["some"] for row in ns.scan()] == [[], later, [], [], None, []]
    ns.patch([2], given.slice(0, 1) if how == "a table" else table.slice(0, 1))
    assert ns.get(2).attributes == {"some": []}


def test_lists_of_other_columns_have_the_type_that_these_stand_for(db: Database) -> None:
    words = pa.array([["a"], [], None]).flatten().dictionary_encode()
    offsets = pa.array([0, 1, 1, 1], pa.int32())
    columns = {
        "words": pa.ListArray.from_arrays(offsets, words),
        "pairs": pa.array([[1, 2], [3, 4], None], pa.list_(pa.uint16(), 2)),
        "days": pa.array([[], [date(2024, 1, 2)], []]),
    }
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, [1, 2, 3], attributes=columns)
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == {
        "words": "[]string", "pairs": "[]uint", "days": "[]datetime",
    }  # fmt: skip
    assert [row.attributes for row in ns.scan()] == [
        {"days": [], "pairs": [1, 2], "words": ["a"]},
        {"days": ["2024-01-02T00:00:00.000Z"], "pairs": [3, 4], "words": []},
        {"days": [], "pairs": None, "words": []},
    ]


@pytest.mark.parametrize("given", [pa.array([[], []], pa.list_(pa.null())), [[], []]], ids=["Arrow", "lists"])
def test_empty_lists_of_nothing_have_no_type(db: Database, given: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    with pytest.raises(InvalidAttribute, match="'some' holds empty arrays alone"):
        ns.insert(ROWS[:2], attributes={"some": given})
    assert ns.stats().rows == 0


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["a", "b"])])
def test_categories_of_polars_are_what_they_stand_for(db: Database, kind: Any) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    one = pl.Series("one", ["b", None, "a"], dtype=kind)
    some = pl.Series("some", [["a", "b"], None, []], dtype=pl.List(kind))
    for given in (pl.DataFrame([one, some]), {"one": one, "some": some}):
        ns.insert(ROWS, [1, 2, 3], attributes=given)
        assert [row.attributes for row in ns.scan()] == [
            {"one": "b", "some": ["a", "b"]},
            {"one": None, "some": None},
            {"one": "a", "some": []},
        ]
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == {
        "one": "string",
        "some": "[]string",
    }


def test_extensions_that_stand_for_what_is_kept(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    key = UUID(int=7)
    columns = {
        "key": pa.array([key.bytes, None, key.bytes], pa.uuid()),
        "good": pa.array([1, None, 0], pa.bool8()),
        "raw": pa.array(['{"a": 1}', None, "2"], pa.json_()),
    }
    ns.insert(ROWS, [1, 2, 3], attributes=columns)
    assert {name: one["type"] for name, one in ns.stats().schema.items()} == {
        "key": "uuid",
        "good": "bool",
        "raw": "string",
    }
    assert [row.attributes for row in ns.scan()] == [
        {"key": str(key), "good": True, "raw": '{"a": 1}'},
        {"key": None, "good": None, "raw": None},
        {"key": str(key), "good": False, "raw": "2"},
    ]


def test_no_number_in_polars_is_no_value_and_refused(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    with pytest.raises(SchemaConflict, match="'x' of row 1"):
        ns.insert(ROWS, attributes=pl.DataFrame({"x": [1.0, float("nan"), None]}))


# -- out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["hits", "a batch", "a page", "a scan"])
def test_rows_become_tables_and_data_frames(db: Database, what: str) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "datetime"})
    ns.insert(ROWS, [1, 2, 1 << 63], attributes=EXPECTED)
    asked = {"include": ["vector"], "exclude": []}
    if what == "hits":
        found: Any = ns.search(ROWS[0], **asked)
    elif what == "a batch":
        found = ns.search_batch(ROWS[:1], **asked)[0]
    else:
        found = ns.scan(limit=2, **asked)
        found = found if what == "a scan" else next(found.pages())
    n = 2 if what == "a page" else 3
    table = found.to_arrow()
    searched = ["distance"] if what in ("hits", "a batch") else []
    assert table.column_names == ["id", *searched, "vector", *sorted(TYPES)]
    assert table.schema.field("id").type == pa.uint64()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), DIM)
    assert {name: str(table.schema.field(name).type) for name in TYPES} == {
        "word": "string", "n": "int64", "u": "uint64", "x": "double", "good": "bool",
        "at": "timestamp[ms, tz=UTC]", "tags": "list<item: string>",
    }  # fmt: skip
    assert table.column("id").to_pylist() == [1, 2, 1 << 63][:n]
    assert np.array_equal(table.column("vector").to_pylist(), ROWS[:n])
    expected = [{**one, "at": None if one["at"] is None else WHEN} for one in EXPECTED[:n]]
    for row, one in zip(table.select(list(TYPES)).to_pylist(), expected, strict=True):
        assert {**row, "at": row["at"] and row["at"].astimezone(UTC)} == one
    frame = found.to_pandas()
    assert [str(frame[name].dtype) for name in ("n", "u", "good", "at")] == [
        "Int64", "UInt64", "boolean", "datetime64[ms, UTC]",
    ]  # fmt: skip
    assert frame["n"].tolist()[:1] == [1]
    assert pd.isna(frame["n"][1])
    assert frame["id"].tolist() == [1, 2, 1 << 63][:n]
    polars = pl.DataFrame(found if what == "a scan" else table)
    assert polars["id"].to_list() == [1, 2, 1 << 63][:n]
    assert polars["tags"].to_list() == [one["tags"] for one in EXPECTED[:n]]


def test_what_was_read_can_be_written_again(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS, ["a", "b", "c"], attributes=EXPECTED)
    table = ns.scan(include=["vector"], exclude=[]).to_arrow()
    copy = db.create_namespace("copy", DIM, "l2")
    copy.insert(
        table.column("vector").to_pylist(), table.column("id").to_pylist(),
        attributes=table.drop_columns(["id", "vector"]),
    )  # fmt: skip
    assert [(row.id, row.attributes) for row in copy.scan()] == [
        (row.id, row.attributes) for row in ns.scan()
    ]


@pytest.mark.parametrize("rows", [0, 1])
def test_hits_without_attributes_and_no_hits_at_all(db: Database, rows: int) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "[]datetime"})
    if rows:
        ns.insert(ROWS[:1], attributes={"at": [[]]})
    assert ns.search(ROWS[0]).to_arrow().column_names == ["id", "distance"]
    table = ns.search(ROWS[0], include=["vector"], exclude=[]).to_arrow()
    assert table.num_rows == rows
    assert str(table.schema.field("at").type) == "list<item: timestamp[ms, tz=UTC]>"
    assert table.column("at").to_pylist() == [[]] * rows
    assert ns.scan().to_arrow().num_rows == rows


def test_arrays_of_datetimes_keep_nulls_and_ends_of_time(db: Database) -> None:
    ns = db.create_namespace("docs", DIM, "l2", schema={"at": "[]datetime"})
    given = [["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"], None, []]
    ns.insert(ROWS, [1, 2, 3], attributes={"at": given})
    column = ns.scan().to_arrow().column("at")
    assert column.cast(pa.list_(pa.int64())).to_pylist() == [[-62135596800000, 253402300799999], None, []]


@pytest.mark.parametrize("unit", ["us", "ns"])
def test_what_is_finer_than_milliseconds_is_cut_off_downwards(db: Database, unit: str) -> None:
    before, after = (
        datetime(1969, 12, 31, 23, 59, 59, 999_900, UTC),
        datetime(2024, 5, 6, 7, 8, 9, 123_999, UTC),
    )
    ns = db.create_namespace("docs", DIM, "l2")
    column = pa.array([before, after, None], pa.timestamp(unit, "Europe/Berlin"))
    ns.insert(ROWS, [1, 2, 3], attributes={"of Arrow": column, "of Python": [before, after, None]})
    for row, expected in zip(ns.scan(), ("1969-12-31T23:59:59.999Z", AT, None), strict=True):
        assert row.attributes == {"of Arrow": expected, "of Python": expected}


def test_without_the_extra_an_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3]})
    with vecstore.connect("memory://", maintenance="off") as db:
        ns = db.create_namespace("docs", DIM, "l2")
        ns.insert(ROWS)
        hits = ns.search(ROWS[0])
        real = builtins.__import__

        def without(missing: str) -> Callable[..., Any]:
            def imported(name: str, *more: Any) -> Any:
                if name.partition(".")[0] == missing:
                    raise ImportError(name)
                return real(name, *more)

            return imported

        monkeypatch.setattr(builtins, "__import__", without("pandas"))
        with pytest.raises(InvalidArgument, match=r"vecstore\[pandas\]"):
            hits.to_pandas()
        monkeypatch.setattr(builtins, "__import__", without("pyarrow"))
        with pytest.raises(InvalidArgument, match=r"vecstore\[arrow\]"):
            hits.to_arrow()
        with pytest.raises(InvalidArgument, match=r"a polars DataFrame needs pyarrow.*vecstore\[arrow\]"):
            ns.insert(ROWS, attributes=frame)
        with pytest.raises(InvalidArgument, match=r"vecstore\[arrow\]"):
            ns.scan().to_arrow()
    assert "pyarrow" in sys.modules


# -- text that is none ----------------------------------------------------------------------

BROKEN = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], dtype=np.int32)), pa.py_buffer(b"a\xffb")]
)


@pytest.mark.parametrize(
    "column",
    [
        BROKEN,
        pa.chunked_array([BROKEN[:1], BROKEN[1:]]),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), BROKEN),
        pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), BROKEN),
    ],
    ids=lambda column: str(column.type),
)
def test_text_that_is_not_utf_8_is_refused_by_column_and_row(db: Database, column: Any) -> None:
    ns = db.create_namespace("docs", dim=DIM)
    with pytest.raises(InvalidAttribute, match="'word' of row 1 is not UTF-8") as refused:
        ns.insert(ROWS + 1, attributes=pa.table({"word": column}))
    assert refused.value.details == {"field": "attributes", "attribute": "word", "row": 1}
    assert ns.stats().rows == 0


@pytest.mark.parametrize(
    "column", [BROKEN, pa.chunked_array([BROKEN[:1], BROKEN[1:]])], ids=["array", "chunks"]
)
def test_an_id_that_is_not_utf_8_is_refused_by_its_place(db: Database, column: Any) -> None:
    ns = db.create_namespace("docs", dim=DIM)
    with pytest.raises(InvalidId, match=r"ids\[1\] is not UTF-8") as refused:
        ns.insert(ROWS + 1, column)
    assert refused.value.details["position"] == 1


def test_two_columns_of_one_name_are_refused_by_it(db: Database) -> None:
    table = pa.Table.from_arrays([pa.array([1, 2, 3]), pa.array([1, 2, 3])], names=["word", "word"])
    with pytest.raises(InvalidAttribute, match="two columns are named 'word'"):
        db.create_namespace("docs", dim=DIM).insert(ROWS + 1, attributes=table)
