"""Puts the rows of a large batch in the order in which a build reads them.

Rows whose nearest cell is the same come to lie side by side. Training, encoding and the upload go through
a batch cell by cell, a dozen times: from a file they then read it in order, and not a row here and a row
there (docs/decisions/0017).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecstore.index.ivf import CHUNK_BYTES, lists_for
from vecstore.index.training import in_parts, nearest_cells, sample_for_cells, train_cells
from vecstore.part.builder import PartSpec, available_cores, rotated
from vecstore.progress import Progress, within
from vecstore.room import Room
from vecstore.storage.threads import Workers
from vecstore.types import F32

SAMPLED = 0.4  # of the time, once the cells are found
PLACED = 0.7  # and once each row's cell is


@dataclass(frozen=True, slots=True)
class Arranged:
    """A batch in another order.

    Attributes
    ----------
    vectors
        f32[N, dim]; row r is row ``order[r]`` of the batch.
    order
        i64[N].
    cells
        f32[C, Dp] by which it was put in order, for `build_part`. None: the order is as it was, since a
        part of so few rows has no cells.
    """

    vectors: F32
    order: npt.NDArray[np.int64]
    cells: F32 | None


def arrange(
    vectors: F32,
    spec: PartSpec,
    *,
    room: Room,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Arranged:
    """The rows of a batch, those of a cell together, otherwise in the order that they had.

    Parameters
    ----------
    vectors
        f32[N, dim], as `build_part` takes them.
    room
        Where what is large lies. The order does not depend on it.
    workers
        Threads; None for all cores of this process. The order does not depend on it.
    """
    n, dim = vectors.shape
    k = lists_for(n, dim, spec.settings)
    if k == 1:
        return Arranged(vectors, np.arange(n, dtype=np.int64), None)
    report = within(progress, 0.0, 1.0)
    rng = np.random.Generator(np.random.Philox(spec.seed))
    drawn = np.sort(rng.choice(n, size=min(n, sample_for_cells(k)), replace=False))
    # Not by the room: a product of matrices may round differently in other blocks.
    step = max(1, CHUNK_BYTES // (4 * spec.rotation.padded_dim))
    nearest = np.empty(n, dtype=np.int32)

    def place_some(start: int) -> None:
        some = slice(start, start + step)
        nearest[some] = nearest_cells(rotated(vectors[some], spec), cells, 1)[:, 0]

    with Workers(workers or available_cores()) as pool:
        cells = train_cells(rotated(room.take(vectors, drawn), spec, pool, room), k, rng)
        report(SAMPLED)
        in_parts(pool, place_some, range(0, n, step))
    report(PLACED)
    order = np.argsort(nearest, kind="stable").astype(np.int64)
    place = np.empty(n, dtype=np.int64)
    place[order] = np.arange(n)

    # Read in order and written to as many places as there are cells.
    moved = room.empty((n, dim), np.float32)
    for start in range(0, n, step):
        some = slice(start, start + step)
        moved[place[some]] = vectors[some]
        report(PLACED + (1.0 - PLACED) * start / n)
    report(1.0)
    return Arranged(moved, order, cells)
