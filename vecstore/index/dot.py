"""Queries under the dot product: the length, and the place, at which the codes tell most."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from vecstore.rows.vectors import MAX_NORM
from vecstore.types import F32

DOT_LENGTH: Final = 32.0  # of a query under the dot product, in lengths of the farthest cell
OFFSET: Final = 4.0  # a mean so many times as far out as the farthest cell is from it outweighs the cells


def dot_length(cells: F32 | None, mean: F32 | None) -> float:
    """How long a query must be under the dot product, beside the rows of a part; 0: as it is.

    A single cell lies at the mean on which the part is centred, and tells nothing of its rows.
    """
    offset = 0.0 if mean is None else _square(mean)
    return DOT_LENGTH * math.sqrt(_farthest(cells) + offset)


def dot_square(cells: F32 | None, mean: F32 | None) -> float:
    """What `dot_gain` needs of a part whose mean lies much farther out than its cells from it; else 0."""
    offset = 0.0 if mean is None else _square(mean)
    return offset if offset > OFFSET * OFFSET * _farthest(cells) else 0.0


def dot_gain(q: F32, length: float, mean: F32 | None = None, square: float = 0.0) -> float:
    """What to multiply a query by so that it is at least of this length; a power of two, so exact.

    Neighbours by the dot product do not depend on the query's length, but the error of a code does:
    it grows with the distance from the query to the row's centroid, hence relative to the query
    with 1 / its length. Beyond the norm that a query may have, squares would leave float32. Where all
    rows lie about a mean far out, of that squared norm, the query is brought to where it is nearest to the
    mean: nowhere is the distance less beside the query's length. That rounds it, so that the distances
    of hits are worked out anew by those that were given.
    """
    length = min(length, MAX_NORM)
    own = float(np.linalg.norm(q.astype(np.float64)))
    if own == 0.0 or length == 0.0:
        return 1.0
    gain = math.ldexp(1.0, max(-120, min(120, math.ceil(math.log2(length / own)))))
    along = 0.0 if mean is None or square == 0.0 else float(q.astype(np.float64) @ mean)
    return min(gain, square / along) if along > 0.0 else gain


def _square(mean: F32) -> float:
    return float(np.square(mean, dtype=np.float64).sum())


def _farthest(cells: F32 | None) -> float:
    """The greatest squared distance of a cell from the mean."""
    if cells is None or len(cells) < 2:
        return 0.0
    return float(np.einsum("ij,ij->i", cells, cells, dtype=np.float64).max())
