"""How many lists a part has, and how many a query plans to probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core import clustered, generator
from tests.index.test_training import check as check_partition
from vecstore.index.ivf import capacity_for, lists_for, planned_probes, single_list
from vecstore.manifest.model import Settings


def test_a_single_list_is_centred_on_the_mean() -> None:
    z = clustered(generator(5), 50, 64)
    partition = single_list(z)
    check_partition(partition, 50, 1, 64)
    np.testing.assert_allclose(partition.cells[0], z.mean(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("n", "dim", "changes", "expected"),
    [
        (1, 4096, {"small_part_threshold": 0}, 1),
        (200, 1000, {}, 1),
        (201, 1000, {}, 7),
        (10_000, 384, {}, 324),
        (10_000, 384, {"list_rows": 0}, 400),
        (10_000, 384, {"list_rows": 0, "cluster_factor": 1.0}, 100),
        (10_000, 384, {"k_max": 100}, 100),
        (10_000, 384, {"k_min": 500}, 500),
        (10, 1_000_000, {"k_min": 500}, 10),
        (10_000_000, 384, {"list_rows": 2}, 65_536),
    ],
)
def test_the_number_of_lists_follows_rows_and_settings(
    n: int, dim: int, changes: dict[str, Any], expected: int
) -> None:
    assert lists_for(n, dim, Settings(**changes)) == expected


@given(st.integers(1, 100_000), st.floats(1e-6, 1.0), st.integers(1, 65_536))
def test_planned_probes_stay_within_bounds(k: int, fraction: float, cap: int) -> None:
    probes = planned_probes(k, fraction, cap)
    assert 1 <= probes <= min(k, cap)
    assert planned_probes(k, 1.0, 65_536) == min(k, 65_536)


@pytest.mark.parametrize(
    ("n", "changes", "expected"),
    [
        (10_000, {}, 32),
        (10_000, {"list_rows": 0}, None),
        (10_000, {"list_rows": 7}, 7),
        (10_000, {"k_max": 100}, 128),
        (4_000_000, {}, 64),
    ],
)
def test_a_list_holds_no_more_than_the_settings_say(
    n: int, changes: dict[str, Any], expected: int | None
) -> None:
    how = Settings(**changes)
    assert capacity_for(n, lists_for(n, 384, how), how) == expected


@given(st.integers(202, 5_000_000), st.integers(1, 2_000), st.integers(1, 65_536))
def test_the_lists_have_room_for_all_rows(n: int, list_rows: int, k_max: int) -> None:
    how = Settings(list_rows=list_rows, k_max=k_max)
    k = lists_for(n, 1_000, how)
    capacity = capacity_for(n, k, how)
    assert capacity is not None
    assert capacity * k >= n
