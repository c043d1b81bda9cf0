"""Rows put in the order of their cells: a permutation that depends on nothing but rows and seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import clustered, generator
from tests.part.helpers import spec
from vecstore.index.training import nearest_cells
from vecstore.part.arrange import arrange
from vecstore.part.builder import rotated
from vecstore.room import IN_MEMORY, Room

ROWS = clustered(generator(6), 3_000, 40)


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_rows_of_a_cell_lie_together_in_the_order_that_they_had(metric: Any) -> None:
    how = spec(40, metric)
    found = arrange(ROWS, how, room=IN_MEMORY)
    assert found.cells is not None
    np.testing.assert_array_equal(np.sort(found.order), np.arange(len(ROWS)))
    np.testing.assert_array_equal(found.vectors, ROWS[found.order])
    cell = nearest_cells(rotated(found.vectors, how), found.cells, 1)[:, 0]
    assert (np.diff(cell) >= 0).all()
    assert len(np.unique(cell)) > 3
    same = np.diff(cell) == 0
    assert (np.diff(found.order)[same] > 0).all()


def test_neither_the_room_nor_the_threads_change_the_order(tmp_path: Path) -> None:
    wide = arrange(ROWS, spec(40), room=IN_MEMORY, workers=1)
    narrow = arrange(ROWS, spec(40), room=Room(1_000, str(tmp_path)), workers=3)
    np.testing.assert_array_equal(narrow.order, wide.order)
    np.testing.assert_array_equal(narrow.vectors, wide.vectors)
    assert narrow.cells is not None
    assert wide.cells is not None
    np.testing.assert_array_equal(narrow.cells, wide.cells)
    other = arrange(ROWS, spec(40, seed=8), room=IN_MEMORY)
    assert not np.array_equal(other.order, wide.order)


def test_rows_of_a_part_without_cells_stay_where_they_are() -> None:
    found = arrange(ROWS[:50], spec(40, small_part_threshold=2_000), room=IN_MEMORY)
    assert found.cells is None
    np.testing.assert_array_equal(found.vectors, ROWS[:50])
    np.testing.assert_array_equal(found.order, np.arange(50))


def test_progress_ends_at_all_of_it() -> None:
    told: list[float] = []
    arrange(ROWS, spec(40), room=IN_MEMORY, progress=told.append)
    assert told == sorted(told)
    assert told[0] < 0.5
    assert told[-1] == 1.0
