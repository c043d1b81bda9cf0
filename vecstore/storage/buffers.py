"""Memory that kernels may read through its address: aligned to a cache line, never written again."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

ALIGNMENT: Final = 64

Bytes = npt.NDArray[np.uint8]


def aligned_copy(data: bytes | memoryview) -> Bytes:
    """A read-only copy of ``data``, u8[len(data)], whose address is a multiple of `ALIGNMENT`."""
    space = np.empty(len(data) + ALIGNMENT, dtype=np.uint8)
    start = -space.ctypes.data % ALIGNMENT
    copy = space[start : start + len(data)]
    copy[:] = np.frombuffer(data, dtype=np.uint8)
    copy.flags.writeable = False
    return copy
