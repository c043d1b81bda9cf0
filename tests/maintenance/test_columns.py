"""Attributes through a merge: values bit for bit, the part that one insert would make, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import RangeStore, clustered, engine, generator
from tests.maintenance.test_merge import MIB, merged
from tests.rows.filters.oracle import TYPES, random_rows
from vecstore.api import Database, Namespace
from vecstore.rows.attributes import parse_attributes
from vecstore.rows.directory import ColumnEntry
from vecstore.rows.encoding import encode_columns
from vecstore.rows.schema import Spec
from vecstore.storage.memory import MemoryStore

DIM = 8
EXTREMES: dict[str, list[Any]] = {
    "string": [
        "",
        "\0",
        "\0\0",
        "a\0b",
        "a",
        "ab",
        "ä",
        "\U0010ffff",
        "x" * 4_096,
        "same start 1",
        "same start 2",
    ],
    "int": [-(2**63), 2**63 - 1, 0, -1, 1],
    "uint": [0, 2**64 - 1, 2**63],
    "float": [0.0, -0.0, 5e-324, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308, 0.1],
    "bool": [True, False],
    "datetime": ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
}


def extreme_rows(rng: random.Random, n: int) -> list[dict[str, Any]]:
    """Every type, filterable and not, an array of each: nulls, empty arrays, ends of what there is."""
    found = []
    for _ in range(n):
        row: dict[str, Any] = {}
        for kind, values in EXTREMES.items():
            for filterable in ("filtered", "read"):
                row[f"{kind} {filterable}"] = rng.choice([None, *values])
                some = rng.choices(values, k=rng.choice([0, 1, 3, 70]))
                row[f"[]{kind} {filterable}"] = None if rng.random() < 0.1 else some
        found.append(row)
    return found


SCHEMA = {
    f"{array}{kind} {filterable}": {"type": f"{array}{kind}", "filterable": filterable == "filtered"}
    for kind in EXTREMES
    for array in ("", "[]")
    for filterable in ("filtered", "read")
}


def columns_of(ns: Namespace, **how: Any) -> tuple[bytes, dict[str, ColumnEntry], list[int]]:
    """What a merge makes of the attributes of a namespace, and the ids in the order of its rows."""
    image = merged(ns._backend.namespace(ns.name), **how).image  # type: ignore[attr-defined]
    assert image is not None
    data, entries = image.columns
    order = np.arange(image.n) if image.partition is None else image.partition.order
    assert image.ids is not None
    return bytes(data), entries, image.ids.values[order].tolist()


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
@pytest.mark.parametrize("trained", [False, True])
def test_merged_columns_are_those_of_the_same_rows_given_at_once(
    tmp_path: Path, kind: Any, trained: bool
) -> None:
    """Byte for byte, of every type and form, whatever the bound; dead rows leave nothing."""
    n = 600
    rng = random.Random(4)
    given = extreme_rows(rng, n)
    for i, row in enumerate(random_rows(rng, n)):
        given[i] |= row
    schema = {**SCHEMA, **{name: {"type": what, "filterable": True} for name, what in TYPES.items()}}
    ns = Database(engine(kind())).create_namespace(
        "ns", DIM, "l2", schema=schema, small_part_threshold=0 if trained else 1 << 30
    )
    vectors = clustered(generator(2), n, DIM)
    for start, stop in ((0, 1), (1, 300), (300, n)):
        ns.insert(vectors[start:stop], range(start, stop), attributes=given[start:stop])
    ns.delete(range(0, n, 3))
    specs = {name: Spec(one["type"], one["filterable"]) for name, one in schema.items()}  # type: ignore[arg-type]
    for memory in (1 << 40, 1):
        data, entries, ids = columns_of(ns, memory=memory, folder=str(tmp_path))
        expected = encode_columns(parse_attributes([given[i] for i in ids], len(ids), {}, specs))
        assert sorted(ids) == [i for i in range(n) if i % 3]
        assert entries == expected[1]
        assert data == bytes(expected[0])
    ns.compact()
    assert ns.stats().parts == 1
    for i in range(1, n, 50):
        if i % 3:
            found = ns.get(i).attributes
            assert repr({name: found[name] for name in sorted(given[i])}) == repr(
                dict(sorted(given[i].items()))
            )


def test_attributes_that_parts_do_not_share_are_null_in_the_others_and_dropped_ones_are_left() -> None:
    ns = Database(engine()).create_namespace("ns", DIM, "l2")
    rows = clustered(generator(1), 40, DIM)
    ns.insert(rows[:10], range(10), attributes={"old": [f"o{i}" for i in range(10)], "both": list(range(10))})
    ns.insert(rows[10:20], range(10, 20), attributes={"new": [[i, i] for i in range(10, 20)]})
    ns.update(schema={"old": None})
    ns.insert(rows[20:30], range(20, 30), attributes={"old": list(range(20, 30)), "both": [None] * 10})
    ns.insert(rows[30:], range(30, 40))
    ns.compact()
    assert ns.stats().parts == 1
    for i in range(40):
        assert ns.get(i).attributes == {
            "both": i if i < 10 else None,
            "new": [i, i] if 10 <= i < 20 else None,
            "old": i if 20 <= i < 30 else None,
        }


def test_values_of_an_attribute_that_was_dropped_leave_the_storage_with_the_next_compaction() -> None:
    store = MemoryStore()
    ns = Database(engine(store)).create_namespace("ns", DIM, "l2")
    ns.insert(
        clustered(generator(1), 10, DIM), range(10), attributes={"secret": ["s3cret"] * 10, "n": range(10)}
    )
    ns.update(schema={"secret": None})
    assert len(ns.compact().merged) == 1
    (part,) = ns.manifest()["parts"]
    assert b"s3cret" not in bytes(store.get(f"namespaces/ns/parts/{part['id']}.part").data)
    assert ns.get(3).attributes == {"n": 3}
    assert ns.compact().reason == "nothing due"
    ns.update(schema={"n": None})
    ns.compact()
    assert ns.compact().reason == "nothing due"


def texts(n: int) -> tuple[dict[str, Any], int]:
    """Attributes of ``n`` rows, and about how many bytes they take."""
    body = [generator(i).bytes(4_000).hex() for i in range(n)]
    title = [f"{i % 977:04} {'of a page that is there often ' * 100}" for i in range(n)]
    return {"body": body, "title": title}, sum(map(len, body + title))


def lists(n: int) -> tuple[dict[str, Any], int]:
    rng = generator(5)
    seen = [rng.integers(0, 1 << 40, size=600).tolist() for _ in range(n)]
    tags = [[f"tag {j}" for j in rng.integers(0, 100_000, size=30)] for _ in range(n)]
    return {"seen": seen, "tags": tags}, 8 * 600 * n


@pytest.mark.parametrize("make", [texts, lists])
def test_columns_take_no_more_memory_than_a_compaction_may(tmp_path: Path, make: Any) -> None:
    """What NumPy and Python allocate, of a merge whose attributes are more than twice the bound."""
    n, memory = 4_000, 8 * MIB
    given, size = make(n)
    assert size > 2 * memory
    db = engine(RangeStore())
    ns = Database(db).create_namespace(
        "ns", DIM, "l2", schema={"body": {"type": "string", "filterable": False}}
    )
    vectors = clustered(generator(1), n, DIM)
    for start in range(0, n, 1_000):
        ns.insert(
            vectors[start : start + 1_000],
            range(start, start + 1_000),
            attributes={name: values[start : start + 1_000] for name, values in given.items()},
        )
    del given
    merged_in = db.namespace("ns")
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        found = merged(merged_in, memory=memory, folder=str(tmp_path))
        assert found.image is not None
        assert sum(map(len, found.image.chunks())) > memory
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert peak <= memory
