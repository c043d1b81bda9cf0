from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecstore.ext.field import Field, Plan

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

class Searcher:
    padded_dim: int
    def __init__(self, padded_dim: int) -> None: ...
    def begin(
        self, field: Field, plan: Plan, q: NDArray[np.float32], timed: bool = False
    ) -> Missing | None: ...
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
