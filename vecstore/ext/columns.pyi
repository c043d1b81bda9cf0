import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

def rank_texts(
    data: npt.NDArray[np.uint8],
    ends: I64,
    used: npt.NDArray[np.uint8],
    entries: U64,
    scratch: U64,
    ranks: I64,
    firsts: I64,
) -> int: ...
def take_elements(elements: U64, starts: I64, counts: I64, out: U64) -> None: ...
def rows_by_code(codes: I64, counts: I64, starts: I64, rows: npt.NDArray[np.uint32]) -> None: ...
