import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

def outline(data: memoryview, ends: I64, children: I64, inner: I64, depths: I64) -> int: ...
