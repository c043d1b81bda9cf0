import numpy as np
from numpy.typing import NDArray

def assign_nearest(
    dots: NDArray[np.float32],
    half_norms: NDArray[np.float32],
    label_base: int,
    best: NDArray[np.float32],
    labels: NDArray[np.int32],
    rows: NDArray[np.int64] | None = None,
) -> None: ...
def accumulate(
    x: NDArray[np.float32],
    labels: NDArray[np.int32],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> None: ...
def nearest_few(
    dots: NDArray[np.float32],
    half_norms: NDArray[np.float32],
    out: NDArray[np.int32],
) -> None: ...
def nearest_lists(
    z: NDArray[np.float32],
    rows: NDArray[np.int64],
    near: NDArray[np.int32],
    cells: NDArray[np.float32],
    cell_lists: NDArray[np.int64],
    codes: NDArray[np.uint8],
    centroids: NDArray[np.int8],
    scales: NDArray[np.float32],
    half_norms: NDArray[np.float32],
    choices: NDArray[np.int32],
    costs: NDArray[np.float32],
) -> None: ...
def list_costs(
    z: NDArray[np.float32],
    rows: NDArray[np.int64],
    choices: NDArray[np.int32],
    centroids: NDArray[np.int8],
    scales: NDArray[np.float32],
    half_norms: NDArray[np.float32],
    costs: NDArray[np.float32],
) -> None: ...
def list_means(
    z: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None: ...
def list_spread(
    z: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    centroids: NDArray[np.int8],
    scales: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None: ...
def fill_lists(
    costs: NDArray[np.float32],
    choices: NDArray[np.int32],
    rows: NDArray[np.int64],
    lists: int,
    capacity: int,
    step: float,
    most: int,
    labels: NDArray[np.int32],
) -> int: ...
