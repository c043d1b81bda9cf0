"""Which extents of a distant part to fetch for a query (docs/decisions/0024).

The lists that are nearest to a query lie scattered over a part's file. Fetched one by one they are a
hundred requests; with the gaps between them, ten times their bytes. But what lies in a gap is near too,
if not so near, since lists of one cell lie together; and a far list that lies alone costs a request and
gains little. So a query takes the extents whose lists are worth what they cost: a list gains what the
calibration found at its rank, and a byte has a price. The price at which queries find as much as a plan
does is measured when the part is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.ivf import choose_extents

SCATTERED: Final = 26  # lists; up to so many are fetched as they are planned
REQUEST_BYTES: Final = 352 << 10  # what a request costs beside its bytes (decision 0012)
RANKED: Final = 2_048  # lists that gain something at most
PRICES: Final[tuple[float, ...]] = tuple(
    10.0 ** (-0.2 * i) for i in range(30, 60)
)  # of a byte, in recall; descending


def list_bounds(lists: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """i64[K + 1]: where the record of each list begins, and the last one ends, of a table of `LIST_DTYPE`."""
    ends = lists["offset"][-1:] + lists["length"][-1:]
    return np.concatenate([lists["offset"], ends]).astype(np.int64)


def gains_of(
    probes: npt.ArrayLike, coverage: npt.NDArray[np.float64], ranked: int
) -> npt.NDArray[np.float64]:
    """f64[ranked]: the share of the neighbours that the list at each rank holds.

    Parameters
    ----------
    probes, coverage
        The share that so many of the nearest lists hold, as `Calibration` has it.
    """
    covered = np.interp(np.log(np.arange(1, ranked + 1)), np.log(probes), coverage)
    return np.diff(covered, prepend=0.0)


def worth_fetching(
    ranked: npt.NDArray[np.int32],
    gains: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.int64],
    price: float,
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Extents that are worth a price a byte: i32[m] their first lists, i32[m] the lists that follow them.

    Parameters
    ----------
    ranked
        i32[n], nearest first.
    gains
        f64[n] of each rank.
    """
    order = np.argsort(ranked)
    return choose_extents(ranked[order], gains[order], bounds, price, REQUEST_BYTES)


def lists_within(firsts: npt.NDArray[np.int32], ends: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """All lists of some extents, ascending."""
    sizes = ends - firsts
    starts = np.repeat(firsts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    return (starts + np.arange(sizes.sum())).astype(np.int32)


def found_at(
    prices: Sequence[float],
    ranked: npt.NDArray[np.int32],
    gains: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.int64],
    lists: npt.NDArray[np.int32],
) -> npt.NDArray[np.bool_]:
    """bool[prices, k]: which of ``lists`` lie in the extents that are worth each price."""
    order = np.argsort(ranked)
    ranked, gains = ranked[order], gains[order]
    found = np.zeros((len(prices), len(lists)), dtype=np.bool_)
    for at, price in enumerate(prices):
        firsts, ends = choose_extents(ranked, gains, bounds, price, REQUEST_BYTES)
        if len(firsts):
            place = np.searchsorted(firsts, lists, side="right") - 1
            found[at] = (place >= 0) & (lists < ends[np.maximum(place, 0)])
    return found
