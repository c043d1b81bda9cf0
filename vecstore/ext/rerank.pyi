from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecstore.ext.ivf import Pool
from vecstore.ext.rabitq import QueryTable

class Hits(NamedTuple):
    distance: NDArray[np.float32]
    part: NDArray[np.int32]
    row: NDArray[np.int64]
    ids: NDArray[np.uint64]
    reranked: int
    place: NDArray[np.int32]
    margin: float

def pool_hits(pool: Pool, top_k: int) -> Hits: ...
def rerank_int8(table: QueryTable, pool: Pool, top_k: int) -> Hits: ...
def rerank_fp32(
    q: NDArray[np.float32],
    addresses: NDArray[np.uint64],
    dtype: Literal["f4", "f2"],
    metric: Literal["l2", "dot", "cosine"],
) -> NDArray[np.float32]: ...
