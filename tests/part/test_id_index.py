"""Ids are found where they are, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.core import clustered, generator
from tests.part.helpers import STORES, N, Stored, build, open_part, opened, put, spec
from vecstore.part.format import PAGE
from vecstore.part.reader import PartReader
from vecstore.rows.ids import Ids, parse_ids
from vecstore.storage.cache import ReadTrace
from vecstore.storage.memory import MemoryStore


def rows_of(reader: PartReader, ids: Ids) -> dict[Any, int]:
    which, rows = reader.index.find(ids, ReadTrace())
    assert len(which) == len(set(which.tolist())), "an id was found twice"
    values = [v if isinstance(v, str) else int(v) for v in ids.values]
    return {values[w]: int(r) for w, r in zip(which.tolist(), rows.tolist(), strict=True)}


def expected(stored: Stored, values: npt.NDArray[Any]) -> dict[Any, int]:
    plain = [v if isinstance(v, str) else int(v) for v in values]
    return {plain[row]: at for at, row in enumerate(stored.order.tolist())}


@pytest.mark.parametrize("kind", STORES)
def test_every_integer_id_is_found_and_no_other(kind: type[MemoryStore], coded: Stored) -> None:
    reader = opened(kind, coded)
    wanted = expected(coded, np.arange(N) * 5 + 3)
    assert rows_of(reader, parse_ids(np.arange(N * 5 + 20))) == wanted
    assert rows_of(reader, parse_ids([0, 4, 2**64 - 1, 2**63])) == {}


@pytest.mark.parametrize("kind", STORES)
def test_every_string_id_is_found_and_no_other(kind: type[MemoryStore], small: Stored) -> None:
    reader = opened(kind, small)
    values = np.array([f"r{i}" for i in range(90)], dtype=object)
    asked = parse_ids([*values, *(f"x{i}" for i in range(500))])
    assert rows_of(reader, asked) == expected(small, values)


def test_ids_over_many_pages_are_found() -> None:
    n = 3 * (PAGE // 8) + 17
    values = np.unique(generator(1).integers(2**64, size=n, dtype=np.uint64))
    n = len(values)
    how = spec(1, small_part_threshold=1 << 30)
    stored = build(generator(2).standard_normal((n, 1)).astype(np.float32), parse_ids(values), how)
    for kind in STORES:
        reader = opened(kind, stored)
        asked = np.concatenate([values[::97], values[:3], values[-3:], values[PAGE // 8 - 2 : PAGE // 8 + 2]])
        asked = np.unique(asked)
        which, rows = reader.index.find(parse_ids(asked), ReadTrace())
        assert len(which) == len(asked)
        assert reader.ids_of(rows, ReadTrace()).tolist() == asked[which].tolist()


def test_assigned_ids_are_found_under_their_base() -> None:
    stored = build(clustered(generator(1), 300, 8), None, spec(8))
    store = MemoryStore()
    put(store, stored)
    reader = open_part(store, stored, entry=replace(stored.entry, id_base=1_000))
    assert rows_of(reader, parse_ids([0, 299, 999, 1_000, 1_299, 1_300])) == {
        1_000: int(np.flatnonzero(stored.order == 0)[0]),
        1_299: int(np.flatnonzero(stored.order == 299)[0]),
    }
    every = np.concatenate(list(reader.scan_ids(ReadTrace())))
    assert sorted(every.tolist()) == list(range(1_000, 1_300))


def colliding(n: int) -> Ids:
    """Strings that share one key, as if BLAKE2b had collided."""
    values = np.empty(n, dtype=object)
    values[:] = [f"name-{i}" for i in range(n)]
    return Ids("string", values, np.full(n, 77, dtype=np.uint64))


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("n", [3, PAGE // 8 + 5])
def test_strings_whose_keys_collide_are_told_apart(kind: type[MemoryStore], n: int) -> None:
    ids = colliding(n)
    how = spec(2, small_part_threshold=1 << 30)
    reader = opened(kind, build(clustered(generator(1), n, 2), ids, how))
    some = [0, n - 1]
    asked = Ids("string", ids.values[some], ids.keys[some])
    assert rows_of(reader, asked) == {"name-0": 0, f"name-{n - 1}": n - 1}
    stranger = np.array(["stranger"], dtype=object)
    assert rows_of(reader, Ids("string", stranger, np.array([77], dtype=np.uint64))) == {}


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=60, unique=True),
    asked=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique=True),
    coded_part=st.booleans(),
)
def test_any_strings_are_found(values: list[str], asked: list[str], coded_part: bool) -> None:
    usable = [v for v in values if _encodable(v)]
    wanted = [v for v in [*usable[::2], *asked] if _encodable(v)]
    wanted = list(dict.fromkeys(wanted))
    if not usable or not wanted:
        return
    ids = parse_ids(usable)
    how = spec(3, list_rows=4, small_part_threshold=0 if coded_part else 1 << 20)
    stored = build(clustered(generator(1), len(usable), 3), ids, how)
    found = rows_of(opened(MemoryStore, stored), parse_ids(wanted))
    places = expected(stored, ids.values)
    assert found == {v: places[v] for v in wanted if v in places}


def _encodable(value: str) -> bool:
    try:
        return 1 <= len(value.encode()) <= 64
    except UnicodeEncodeError:
        return False
