from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

PRECISIONS: Final[tuple[str, ...]]

class Field:
    dim: int
    padded_dim: int
    page: int
    resident: bool
    ahead: int
    dot_length: float
    dot_square: float
    groups: int
    def __init__(
        self,
        dim: int,
        metric: Literal["l2", "dot", "cosine"],
        signs: NDArray[np.uint8],
        means: Sequence[NDArray[np.float32] | None],
        page: int,
        resident: bool,
        dot_length: float = 0.0,
        dot_group: int = 0,
        dot_square: float = 0.0,
    ) -> None: ...
    def __len__(self) -> int: ...
    def add_coded(
        self,
        number: int,
        group: int,
        words: NDArray[np.uint32],
        cells: NDArray[np.float32],
        cell_lists: NDArray[np.uint32],
        codes: NDArray[np.uint8],
        first_rows: NDArray[np.int64],
        first_blocks: NDArray[np.int64],
        addresses: NDArray[np.uint64] | None,
        n: int,
        dtype: Literal["f4", "f2"] | None,
        vectors: int = 0,
        pages: NDArray[np.uint8] | None = None,
        id_base: int = 0,
    ) -> None: ...
    def add_small(
        self,
        number: int,
        group: int,
        words: NDArray[np.uint32],
        n: int,
        dtype: Literal["f4", "f2"] | None,
        id_base: int = 0,
    ) -> None: ...
    def narrowed(
        self, allowed: Sequence[tuple[int, NDArray[np.uint32], NDArray[np.uint8] | None]]
    ) -> Field: ...
    def place_small(self, number: int, record: int, vectors: int) -> None: ...

class Plan:
    top_k: int
    pool: int
    most: int
    alive: int
    fp32_cap: int
    looks: int
    direct: bool
    widen: int
    patience: float
    spared: float
    margin: float
    precision: Literal["none", "int8", "fp32"]
    def __init__(
        self,
        *,
        top_k: int,
        pool: int,
        most: int,
        alive: int,
        precision: Literal["none", "int8", "fp32"],
        fp32_cap: int,
        probes: NDArray[np.int32],
        limits: NDArray[np.int32],
        reach: NDArray[np.float32],
        patience: float,
        margin: float,
        widen: int,
        looks: int,
        spared: float = 0.0,
        direct: bool = False,
        width: float = 1.0,
        hollow: NDArray[np.float32] | None = None,
        familiar: NDArray[np.float32] | None = None,
        cap: int = ...,
        distant: NDArray[np.uint8] | None = None,
    ) -> None: ...
