from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstore.ext.field import Field, Plan

GROUP: Final[int]

class Batch:
    padded_dim: int
    def __init__(self, padded_dim: int) -> None: ...
    def run(
        self,
        field: Field,
        plan: Plan,
        queries: NDArray[np.float32],
        ids: NDArray[np.uint64],
        distances: NDArray[np.float32],
        parts: NDArray[np.int32],
        rows: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> list[int]: ...
