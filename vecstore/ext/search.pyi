from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

PRECISIONS: Final[tuple[str, ...]]
STAGES: Final[tuple[str, ...]]

class Missing(NamedTuple):
    lists: dict[int, NDArray[np.int32]]
    small: list[int]
    vectors: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]

class Counts(NamedTuple):
    scanned: int
    reranked: int
    exact: int
    looks: int

class Field:
    dim: int
    padded_dim: int
    page: int
    resident: bool
    dot_length: float
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
    def place_small(self, number: int, record: int, vectors: int) -> None: ...

class Plan:
    top_k: int
    pool: int
    most: int
    alive: int
    fp32_cap: int
    looks: int
    widen: int
    patience: float
    margin: float
    precision: str
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
    ) -> None: ...
    def probed(self) -> NDArray[np.int32]: ...

class Searcher:
    padded_dim: int
    def __init__(self, padded_dim: int) -> None: ...
    def begin(self, field: Field, plan: Plan, q: NDArray[np.float32], timed: bool = False) -> Missing | None: ...
    def run(self) -> Missing | None: ...
    def give_lists(
        self, number: int, lists: NDArray[np.int32], addresses: NDArray[np.uint64], keep: object
    ) -> None: ...
    def give_small(self, number: int, record: int, vectors: int, keep: object) -> None: ...
    def give_vectors(
        self, places: NDArray[np.int64], addresses: NDArray[np.uint64], keep: object
    ) -> None: ...
    def hits(
        self,
    ) -> tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]: ...
    def release(self) -> None: ...
    def counts(self) -> Counts: ...
    def probed(self) -> dict[int, int]: ...
    def times(self) -> dict[str, float]: ...
