"""Bytes of attributes beside Parquet, and time of a filter's bitmap beside NumPy.

    python -m bench.columns

The first table holds the attributes of the 60,000 glosses, in an order that has nothing to do with them,
as a part's has not, against Parquet with zstd (pyarrow's defaults) of the same rows in the order of the
file and in that of the part. The second evaluates filters over a million rows: the columns against the
same predicate in NumPy over arrays in memory: strings, int64, and for strings also int32 codes that somebody
would have had to look up before. Medians, in turn.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tabulate import tabulate

from bench.filters import real_attributes
from vecstore.manifest.model import Attribute
from vecstore.rows.attributes import Column, parse_attributes
from vecstore.rows.bits import RowBits
from vecstore.rows.columns import ColumnReader
from vecstore.rows.directory import encode_directory
from vecstore.rows.encoding import encode_columns
from vecstore.rows.filters import bind, filter_bytes, matching_rows, parse_filter
from vecstore.rows.filters.binding import Between, Matching

ROUNDS = 15


class Columns:
    """Columns in memory, as a mapped part gives them."""

    def __init__(self, columns: dict[str, Column]) -> None:
        data, self._entries = encode_columns(columns)
        self._data = np.frombuffer(data, dtype=np.uint8)
        self.n = len(next(iter(columns.values())))
        self.kept: Any = {}
        self.key = "memory"

    def read(self, start: int, end: int) -> Any:
        return self._data[start:end]

    def fetch(self, spans: Sequence[tuple[int, int]]) -> None:
        pass

    def column(self, name: str, attribute: int) -> ColumnReader:  # noqa: ARG002
        return ColumnReader(name, self._entries[name], self.n, self)

    def ids_equal_to(self, keys: tuple[int | bytes, ...]) -> RowBits:
        raise NotImplementedError

    def ids_between(self, test: Between) -> RowBits:
        raise NotImplementedError

    def ids_matching(self, test: Matching) -> RowBits:
        raise NotImplementedError


def sizes() -> None:
    given = real_attributes(60_000)
    order = np.random.default_rng(0).permutation(60_000)
    columns = parse_attributes(given, 60_000, {}, {})
    rows = []
    for names in [[name] for name in given] + [list(given)]:
        data, entries = encode_columns({name: columns[name].take(order) for name in sorted(names)})
        ours = (len(data) + len(encode_directory(entries))) / 60_000
        file, part = (
            _parquet({name: [given[name][i] for i in some] for name in names}) / 60_000
            for some in (range(60_000), order.tolist())
        )
        rows.append([", ".join(names), ours, file, ours / file, part, ours / part])
    heads = ["glosses", "bytes a row", "Parquet, as in the file", "ratio", "Parquet, as in the part", "ratio"]
    print(tabulate(rows, heads, floatfmt=".2f"))


def _parquet(columns: dict[str, list[Any]]) -> int:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="zstd")
    return len(out.getvalue())


def bitmaps(n: int = 1_000_000) -> None:
    rng = np.random.default_rng(1)
    lang, user = rng.integers(0, 50, n), rng.integers(0, 10_000, n)
    year, price = rng.integers(1_900, 2_025, n), rng.integers(0, 1 << 40, n)
    words = np.array([f"lang {i:02}" for i in range(50)], dtype=object)
    columns = Columns(
        parse_attributes(
            {"lang": words[lang].tolist(), "user": user, "year": year, "price": price}, n, {}, {}
        )
    )
    schema = {
        "lang": Attribute(0, "string"),
        "user": Attribute(1, "int"),
        "year": Attribute(2, "int"),
        "price": Attribute(3, "int"),
    }
    codes, texts = lang.astype(np.int32), words.astype(str)[lang]
    some = rng.choice(10_000, 100, replace=False).tolist()
    low, high = 1 << 39, (1 << 39) + (1 << 40) // 10
    three = [["lang", "Eq", "lang 07"], ["year", "Gte", 1_990], ["price", "Lt", high]]
    cases: list[tuple[str, list[Any], Callable[[], Any]]] = [
        ("Eq of strings", ["lang", "Eq", "lang 07"], lambda: texts == "lang 07"),
        ("Eq of strings, beside codes", ["lang", "Eq", "lang 07"], lambda: codes == 7),
        ("Eq of integers, 1 % match", ["year", "Eq", 1_990], lambda: year == 1_990),
        ("Eq of integers, .01 % match", ["user", "Eq", some[0]], lambda: user == some[0]),
        ("In of 100", ["user", "In", some], lambda: np.isin(user, some)),
        (
            "range of 10 %",
            ["And", [["price", "Gte", low], ["price", "Lt", high]]],
            lambda: (price >= low) & (price < high),
        ),
        (
            "And of three, beside codes",
            ["And", three],
            lambda: (codes == 7) & (year >= 1_990) & (price < high),
        ),
    ]
    rows = []
    for name, f, numpy in cases:
        expression = parse_filter(filter_bytes(f))

        def ours(expression: Any = expression) -> RowBits:
            return matching_rows(bind(expression, schema, "u64"), columns)

        if not np.array_equal(np.flatnonzero(ours().holds(np.arange(n))), np.flatnonzero(numpy())):
            raise SystemExit(f"{name}: other rows than NumPy's")
        times: list[tuple[float, float]] = [(_seconds(ours), _seconds(numpy)) for _ in range(ROUNDS)]
        mine, theirs = (statistics.median(side) * 1e6 for side in zip(*times, strict=True))
        rows.append([name, len(ours()), mine, theirs, theirs / mine])
    print(tabulate(rows, [f"{n:,} rows", "matches", "µs", "NumPy µs", "times as fast"], floatfmt=",.1f"))


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    sizes()
    bitmaps()
