from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecstore.ext.rabitq import QueryTable

MAX_CAPACITY: Final[int]
LOOKED_AT_A_LIST: Final[int]
LOOKED_AT_LEAST: Final[int]
LOOKED_AT_SHARE: Final[int]

class Entries(NamedTuple):
    estimate: NDArray[np.float32]
    bound: NDArray[np.float32]
    g_add: NDArray[np.float32]
    part: NDArray[np.int32]
    row: NDArray[np.int64]
    slot: NDArray[np.int32]
    record: NDArray[np.uint64]

class Pool:
    def __init__(self, capacity: int) -> None: ...
    def reset(self, capacity: int) -> None: ...
    def __len__(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def threshold(self) -> float: ...
    def entries(self) -> Entries: ...

def rank_lists(
    table: QueryTable,
    cells: NDArray[np.float32],
    cell_lists: NDArray[np.uint32],
    codes: NDArray[np.uint8],
    n: int,
    estimates: NDArray[np.float32] | None = None,
) -> NDArray[np.int32]: ...
def scan_lists(
    table: QueryTable,
    pool: Pool,
    part: int,
    addresses: NDArray[np.uint64],
    first_rows: NDArray[np.int64],
    first_blocks: NDArray[np.int64],
    words: NDArray[np.uint32],
    skip_bound: bool = False,
    first_place: int = 0,
) -> int: ...
def choose_extents(
    lists: NDArray[np.int32],
    gains: NDArray[np.float64],
    bounds: NDArray[np.int64],
    price: float,
    request: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...

class ResidentLists:
    def __init__(
        self,
        cells: NDArray[np.float32],
        cell_lists: NDArray[np.uint32],
        codes: NDArray[np.uint8],
        addresses: NDArray[np.uint64],
        first_rows: NDArray[np.int64],
        first_blocks: NDArray[np.int64],
        verified: NDArray[np.bool_],
    ) -> None: ...
    def probe(
        self,
        table: QueryTable,
        pool: Pool,
        part: int,
        first: int,
        last: int,
        words: NDArray[np.uint32],
    ) -> int | NDArray[np.int32]: ...

def scan_vectors(
    q: NDArray[np.float32],
    pool: Pool,
    part: int,
    address: int,
    dtype: Literal["f4", "f2"],
    n: int,
    metric: Literal["l2", "dot", "cosine"],
    words: NDArray[np.uint32],
    record: int = 0,
) -> int: ...
def scan_int8(
    table: QueryTable,
    pool: Pool,
    part: int,
    record: int,
    first_row: int,
    words: NDArray[np.uint32],
) -> int: ...
def record_layout(n: int, padded_dim: int, codes: bool, int8: bool) -> tuple[int, int, int, int]: ...
