"""Extents: which are worth fetching, what they find, and that a search from afar keeps its target."""

from __future__ import annotations

import uuid
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.core import database, generator, nearest, recall, sample
from tests.index.test_search import RangeStore
from vecstore.ext.ivf import choose_extents
from vecstore.index.extents import (
    PRICES,
    REQUEST_BYTES,
    SCATTERED,
    found_at,
    gains_of,
    list_bounds,
    lists_within,
    worth_fetching,
)
from vecstore.part.format import LIST_DTYPE


def worth(
    chosen: list[tuple[int, int]],
    gains: dict[int, float],
    bounds: NDArray[np.int64],
    price: float,
    request: int,
) -> float:
    """What extents gain, less what they cost."""
    gained = sum(gains.get(number, 0.0) for first, end in chosen for number in range(first, end))
    paid = sum(request + int(bounds[end] - bounds[first]) for first, end in chosen)
    return gained - price * paid


def best_of_all(gains: dict[int, float], bounds: NDArray[np.int64], price: float, request: int) -> float:
    """The most that any choice of lists is worth: by trying every one."""
    best = 0.0
    for taken in product([False, True], repeat=len(bounds) - 1):
        edges = np.flatnonzero(np.diff([0, *taken, 0]))
        chosen = [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        best = max(best, worth(chosen, gains, bounds, price, request))
    return best


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    values=st.lists(st.integers(0, 20), min_size=8, max_size=8),
    price=st.sampled_from([0.0, 0.3, 1.0, 3.0]),
    request=st.integers(0, 12),
)
def test_no_other_extents_are_worth_more(
    sizes: list[int], values: list[int], price: float, request: int
) -> None:
    bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    gains = {i: float(values[i]) for i in range(len(sizes)) if values[i]}
    lists = np.array(sorted(gains), dtype=np.int32)
    firsts, ends = choose_extents(lists, np.array([gains[i] for i in lists]), bounds, price, request)
    chosen = list(zip(firsts.tolist(), ends.tolist(), strict=True))
    assert all(first < end for first, end in chosen)
    assert all(one[1] <= other[0] for one, other in pairwise(chosen))
    assert worth(chosen, gains, bounds, price, request) == pytest.approx(
        best_of_all(gains, bounds, price, request)
    )


@pytest.mark.parametrize(
    ("lists", "gains"), [([1, 0], 2), ([0, 0], 2), ([0, 3], 2), ([-1, 0], 2), ([0, 1], 1)]
)
def test_lists_that_do_not_ascend_or_have_no_bounds_are_refused(lists: list[int], gains: int) -> None:
    with pytest.raises(ValueError, match="list"):
        choose_extents(np.array(lists, np.int32), np.ones(gains), np.arange(4, dtype=np.int64), 0.1, 1)


def test_a_gap_is_bridged_where_that_costs_less_than_a_request() -> None:
    size = REQUEST_BYTES // 4
    bounds = np.arange(101, dtype=np.int64) * size
    ranked = np.array([50, 53, 80, 20], dtype=np.int32)
    gains = np.array([1.0, 0.8, 0.5, 1e-9])
    firsts, ends = worth_fetching(ranked, gains, bounds, 1e-8)
    assert list(zip(firsts.tolist(), ends.tolist(), strict=True)) == [(50, 54), (80, 81)]
    assert lists_within(firsts, ends).tolist() == [50, 51, 52, 53, 80]
    asked = np.array([49, 50, 52, 54, 80, 20], dtype=np.int32)
    cheap, dear = found_at([1e-8, 1.0], ranked, gains, bounds, asked)
    assert cheap.tolist() == [False, True, True, False, True, False]
    assert not dear.any()


def test_gains_add_up_to_what_is_covered() -> None:
    gains = gains_of([1, 10, 100], np.array([0.3, 0.8, 1.0]), 100)
    covered = np.cumsum(gains)
    assert covered[[0, 9, 99]] == pytest.approx([0.3, 0.8, 1.0])
    assert (gains >= 0).all()


def test_bounds_are_those_of_the_table() -> None:
    table = np.zeros(3, dtype=LIST_DTYPE)
    table["offset"], table["length"] = [0, 64, 192], [64, 128, 256]
    assert list_bounds(table).tolist() == [0, 64, 192, 448]


@pytest.mark.parametrize("target", [0.9, 0.95])
def test_a_search_from_afar_meets_its_target_with_fewer_requests(target: float) -> None:
    glosses = sample()
    order = generator(1).permutation(len(glosses.ids))
    queries = np.concatenate([glosses.vectors[order[:150]], glosses.query_vectors[:150]])
    rows = glosses.vectors[order[800:5_800]]
    store = RangeStore(uuid.uuid4().hex)
    # Lists so small that a plan of many is scattered over a file of some megabytes.
    database(store).create_namespace("far", dim=384, metric="cosine", list_rows=4).insert(rows)
    ids, requests, more = [], [], 0
    for q in queries:
        hits = database(store, seed=9).namespace("far").search(q, target_recall=target, debug=True)
        assert hits.debug is not None
        assert hits.debug["storage"]["round_trips"] == 3
        requests.append(hits.debug["storage"]["requests"])
        more += hits.debug["parts"][0]["probed"] > SCATTERED
        ids.append(hits.ids)
    each = np.array(
        [recall([a], [t]) for a, t in zip(ids, nearest(rows, queries, "cosine", 10), strict=True)]
    )
    assert more == len(queries)
    assert each.mean() >= target - 0.005 - 2 * each.std() / np.sqrt(len(each))
    assert max(requests) <= 2 + SCATTERED


def test_what_is_cached_is_searched_as_planned_without_a_request() -> None:
    glosses = sample()
    store = RangeStore(uuid.uuid4().hex)
    database(store).create_namespace("far", dim=384, metric="cosine", list_rows=4).insert(
        glosses.vectors[:5_000]
    )
    ns = database(store, seed=9).namespace("far")
    q = glosses.query_vectors[0]
    cold = ns.search(q, target_recall=0.9, debug=True).debug
    assert cold is not None
    for _ in range(3):
        ns.search(q, target_recall=0.9)
    warm = ns.search(q, target_recall=0.9, debug=True).debug
    assert warm is not None
    assert warm["storage"]["requests"] == 1
    assert cold["storage"]["requests"] > 2


def test_extents_hold_no_more_lists_than_a_query_may_probe() -> None:
    glosses = sample()
    store = RangeStore(uuid.uuid4().hex)
    ns = database(store).create_namespace(
        "far", dim=384, metric="cosine", list_rows=4, nprobe_cap=SCATTERED + 4
    )
    ns.insert(glosses.vectors[:5_000])
    for q in glosses.query_vectors[:20]:
        hits = database(store, seed=9).namespace("far").search(q, target_recall=0.95, debug=True)
        assert hits.debug is not None
        assert hits.debug["parts"][0]["probed"] <= SCATTERED + 4


def test_prices_descend() -> None:
    assert all(a > b > 0 for a, b in pairwise(PRICES))
