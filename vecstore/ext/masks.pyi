import numpy as np
from numpy.typing import NDArray

def allow_rows(
    rows: NDArray[np.uint32],
    first_rows: NDArray[np.int64],
    first_blocks: NDArray[np.int64],
    live: NDArray[np.uint32],
    words: NDArray[np.uint32],
    empty: NDArray[np.uint8],
) -> int: ...
def mark_rows(rows: NDArray[np.uint32], bits: NDArray[np.uint8]) -> None: ...
