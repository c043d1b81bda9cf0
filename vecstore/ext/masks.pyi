import numpy as np
from numpy.typing import NDArray

def allow_rows(
    rows: NDArray[np.uint64],
    first_rows: NDArray[np.int64],
    first_blocks: NDArray[np.int64],
    live: NDArray[np.uint32],
    words: NDArray[np.uint32],
    empty: NDArray[np.uint8],
) -> int: ...
def mark_rows(
    order: NDArray[np.uint8], width: int, first_row: int, start: int, end: int, bits: NDArray[np.uint64]
) -> None: ...
def mark_bitmaps(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    bits: NDArray[np.uint64],
) -> None: ...
def mark_codes(
    data: NDArray[np.uint8],
    base: int,
    ends: NDArray[np.uint8],
    width: int,
    least: int,
    first: int,
    last: int,
    bits: NDArray[np.uint64],
) -> None: ...
def keep_between(
    data: NDArray[np.uint8], width: int, n: int, low: int, high: int, bits: NDArray[np.uint64]
) -> None: ...
def place_of(
    order: NDArray[np.uint8],
    order_width: int,
    first_row: int,
    keys: NDArray[np.uint8],
    width: int,
    n: int,
    key: int,
    after: bool,
) -> int: ...
def check_bitmap(data: object, n: int) -> bool: ...
