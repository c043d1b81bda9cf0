from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_PADDED_DIM: Final[int]

def simd() -> str: ...
def simd_available() -> tuple[str, ...]: ...
def use_simd(name: str) -> None: ...
def rotate(
    x: NDArray[np.float32],
    mean: NDArray[np.float32] | None,
    signs: NDArray[np.uint8],
    out: NDArray[np.float32],
) -> None: ...
def encode_rabitq(
    rows: NDArray[np.float32],
    centroid: NDArray[np.float32],
    shift: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]: ...

class QueryTable:
    def __init__(self, padded_dim: int) -> None: ...
    def prepare(self, z: NDArray[np.float32], q_shift: float = 0.0) -> None: ...
    def take(
        self,
        q: NDArray[np.float32],
        mean: NDArray[np.float32] | None,
        signs: NDArray[np.uint8],
        q_shift: float = 0.0,
    ) -> None: ...
    @property
    def padded_dim(self) -> int: ...
    @property
    def scale(self) -> float: ...
    @property
    def bias(self) -> float: ...
    @property
    def squared_norm(self) -> float: ...
    @property
    def q_shift(self) -> float: ...
    def entries(self) -> NDArray[np.uint8]: ...

def score_with_rabitq(
    table: QueryTable,
    blocks: NDArray[np.uint8],
    n: int,
    g_add: float,
    g_error: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
