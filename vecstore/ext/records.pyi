import numpy as np
from numpy.typing import NDArray

def unit_rows(x: NDArray[np.float32], out: NDArray[np.float32]) -> None: ...
def quantise_centroids(
    centroids: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def encode_lists(
    rows: NDArray[np.float32],
    starts: NDArray[np.int64],
    centroids: NDArray[np.int8],
    scales: NDArray[np.float32],
    shift: NDArray[np.float32] | None,
    ids: NDArray[np.uint64] | None,
    codes: bool,
    int8: bool,
    offsets: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None: ...
