"""A part's lists: what they are, how many there are, and how many a query plans to probe.

Lists are many and small (about one block of the scan kernel each): DESIGN section 12 shows that
the rows which must be scanned for a recall depend above all on the size of a list. How they are
found is in ``training.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecstore.ext.records import quantise_centroids
from vecstore.manifest.model import Settings
from vecstore.types import F32

CHUNK_BYTES: Final = 2 << 20  # of one block of a matrix of distances: what the L2 cache holds
FILL: Final = 0.965  # of the slots of its lists that a part uses (decision 0005)
BLOCK: Final = 32  # rows of a block of the scan kernel


@dataclass(frozen=True, slots=True)
class Partition:
    """Rows of a part divided into lists, lists into cells.

    Attributes
    ----------
    cells
        f32[C, Dp] centroids of the cells.
    cell_lists
        u32[C + 1] first list of each cell.
    centroids, scales
        i8[K, Dp] and f32[K]: the centroid of list l is ``scales[l] * centroids[l]``.
    order
        i64[N]: input rows in list order.
    starts
        i64[K + 1]: first position in ``order`` of each list.
    """

    cells: F32
    cell_lists: npt.NDArray[np.uint32]
    centroids: npt.NDArray[np.int8]
    scales: F32
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    @property
    def k(self) -> int:
        return len(self.scales)


def lists_for(n: int, dim: int, settings: Settings) -> int:
    """K of a part of ``n`` rows (DESIGN section 5)."""
    if n * dim <= settings.small_part_threshold or n < 2:
        return 1
    if settings.list_rows:
        wanted = n / (FILL * settings.list_rows)
    else:
        wanted = settings.cluster_factor * math.sqrt(n)
    return max(1, min(n, max(settings.k_min, min(settings.k_max, round(wanted)))))


def capacity_for(n: int, k: int, settings: Settings) -> int | None:
    """Rows that a list may hold at most; None where the settings give no size.

    It is ``list_rows``, or whole blocks where ``k_max`` leaves too few lists for that.
    """
    if not settings.list_rows:
        return None
    if settings.list_rows * k >= n:
        return settings.list_rows
    return math.ceil(n / (FILL * k * BLOCK)) * BLOCK


def single_list(z: F32) -> Partition:
    """The partition of a small part: one list around its mean."""
    centre = z.mean(axis=0, dtype=np.float64).astype(np.float32)[None, :]
    centroids, scales = quantise_centroids(centre)
    return Partition(
        cells=centre,
        cell_lists=np.array([0, 1], dtype=np.uint32),
        centroids=centroids,
        scales=scales,
        order=np.arange(len(z), dtype=np.int64),
        starts=np.array([0, len(z)], dtype=np.int64),
    )


def planned_probes(k: int, probe_fraction: float, nprobe_cap: int) -> int:
    """nprobe = clamp(round(probe_fraction * K), 1, min(K, nprobe_cap)) (DESIGN section 5)."""
    return max(1, min(k, nprobe_cap, round(probe_fraction * k)))
