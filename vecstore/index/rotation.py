"""The random rotation of a namespace, made again from its seed wherever it is needed.

Imports only the kernels. DESIGN.md section 6; Gao & Long, *RaBitQ* (SIGMOD 2024), section 3.1.2, and the
Fast-Hadamard-Kac walk of RaBitQ-Library in place of a dense matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vecstore.ext.rabitq import QueryTable, rotate
from vecstore.limits import MAX_DIM

ROUNDS: Final = 4
CHUNK_ROWS: Final = 4_096


def padded(dim: int) -> int:
    """`dim` rounded up to a multiple of 64."""
    return (dim + 63) // 64 * 64


@dataclass(frozen=True, slots=True)
class Rotation:
    """An orthogonal map from R^dim to R^padded_dim.

    ``signs``, u8[rounds, padded_dim // 8], is what the kernels take. The bits are raw 64-bit draws of
    Philox, a stream that NumPy keeps from version to version (as it does not promise for
    distributions), taken as little-endian bytes.
    """

    dim: int
    seed: int
    padded_dim: int = field(init=False)
    signs: NDArray[np.uint8] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= MAX_DIM:
            raise ValueError(f"dim must be from 1 to {MAX_DIM}, not {self.dim}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative: {self.seed}")
        width = padded(self.dim)
        draws = np.random.Philox(self.seed).random_raw(ROUNDS * width // 64)
        signs = np.asarray(draws, dtype="<u8").view(np.uint8).reshape(ROUNDS, width // 8)
        signs.flags.writeable = False
        object.__setattr__(self, "padded_dim", width)
        object.__setattr__(self, "signs", signs)

    def apply(
        self,
        x: NDArray[np.float32],
        mean: NDArray[np.float32] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Rotate the rows of `x` less `mean`.

        Parameters
        ----------
        x : f32[n, dim]
            May be any array that converts, a memory map too: it is read in bounded chunks.
        mean : f32[dim] or None
        out : f32[n, padded_dim] or None
            Filled and returned where given; must be C-contiguous.

        Returns
        -------
        f32[n, padded_dim]

        Raises
        ------
        ValueError
            If shapes do not agree.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has the shape {x.shape}, not (n, {self.dim})")
        if out is None:
            out = np.empty((len(x), self.padded_dim), dtype=np.float32)
        elif out.shape != (len(x), self.padded_dim):
            raise ValueError(f"out has the shape {out.shape}, not {(len(x), self.padded_dim)}")
        if mean is not None:
            mean = np.ascontiguousarray(mean, np.float32)
        if len(x) <= CHUNK_ROWS and x.dtype == np.float32 and x.flags.c_contiguous:
            rotate(x, mean, self.signs, out)
            return out
        for start in range(0, len(x), CHUNK_ROWS):
            chunk = np.ascontiguousarray(x[start : start + CHUNK_ROWS], dtype=np.float32)
            rotate(chunk, mean, self.signs, out[start : start + CHUNK_ROWS])
        return out

    def load(
        self,
        table: QueryTable,
        q: NDArray[np.float32],
        mean: NDArray[np.float32] | None = None,
        q_shift: float = 0.0,
    ) -> None:
        """Rotate one query f32[dim] less `mean` straight into its table; errors as `QueryTable.take`."""
        table.take(q, mean, self.signs, q_shift)
