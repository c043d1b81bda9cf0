"""Validation of vectors at the door: afterwards every array is f32, C-contiguous and sound."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecstore.errors import DimensionMismatch, InvalidArgument, InvalidVector
from vecstore.ext.rabitq import are_sound, is_sound
from vecstore.limits import MAX_BATCH_BYTES, MAX_BATCH_ROWS, MAX_DIM
from vecstore.types import F32, Metric

MAX_NORM: Final = 1e18  # squares of sums and differences stay within float32
MIN_NORM: Final = 1e-18  # below it a direction is rounding
_CHECK_ROWS: Final = 16_384
_LEAST: Final = MIN_NORM**2
_MOST: Final = MAX_NORM**2
_ROUNDING: Final = 4.0  # of a squared norm, at the most


def as_vectors(values: object, dim: int | None, metric: Metric, *, field: str = "vectors") -> F32:
    """A batch as f32[N, dim], N >= 1; copied only if type or layout asks for it.

    Takes whatever NumPy can turn into numbers in two dimensions; ``dim`` is None where the namespace, and so
    how many numbers a row has to have, is not known. `DimensionMismatch`, `InvalidVector` or
    `InvalidArgument` name the field, the row and the limit.
    """
    array = _as_float32(values, field)
    if array.ndim != 2:
        raise DimensionMismatch(
            f"{field} must have two dimensions, (rows, {dim or 'dim'}), not {array.ndim}",
            field=field,
            dim=dim,
        )
    width = array.shape[1]
    if width != dim and (dim is not None or not width):
        wanted = "at least 1 is needed" if dim is None else f"the namespace has {dim}"
        raise DimensionMismatch(
            f"{field} have {width} dimensions, {wanted}",
            field=field,
            limit=1 if dim is None else dim,
            given=width,
        )
    if not len(array):
        raise InvalidArgument(f"{field} must hold at least one row", field=field, limit=1)
    if len(array) > MAX_BATCH_ROWS or array.nbytes > MAX_BATCH_BYTES:
        raise InvalidArgument(
            f"{field} holds more than {MAX_BATCH_ROWS} rows or {MAX_BATCH_BYTES} bytes",
            field=field,
            limit=MAX_BATCH_ROWS,
        )
    if not are_sound(array, width, _LEAST, _MOST):
        for start in range(0, len(array), _CHECK_ROWS):
            _check(array[start : start + _CHECK_ROWS], start, metric, field)
    return array


def as_vector(values: object, dim: int | None, metric: Metric, *, field: str = "vector") -> F32:
    """One query vector as f32[dim]; ``dim`` and errors as of `as_vectors`."""
    if dim is not None and type(values) is np.ndarray and is_sound(values, dim, _LEAST, _MOST):
        return values
    array = _as_float32(values, field)
    if dim is None:
        if array.ndim != 1 or not len(array):
            raise DimensionMismatch(
                f"{field} must have one dimension, not shape {array.shape}",
                field=field,
                given=list(array.shape),
            )
    elif array.shape != (dim,):
        raise DimensionMismatch(
            f"{field} has shape {array.shape}, the namespace has dimension {dim}",
            field=field,
            limit=dim,
            given=list(array.shape),
        )
    _check(array[None, :], 0, metric, field)
    return array


def are_usable(rows: F32, metric: Metric) -> bool:
    """Whether stored f32[m, dim] are such as were taken once, but for the rounding of their form."""
    least = _LEAST / _ROUNDING if metric == "cosine" else 0.0
    return are_sound(np.asarray(rows), rows.shape[1], least, _ROUNDING * _MOST)


def validate_dim(dim: object) -> int:
    """A namespace's dimension, 1 … `MAX_DIM`."""
    if isinstance(dim, bool) or not isinstance(dim, (int, np.integer)) or not 1 <= dim <= MAX_DIM:
        raise InvalidArgument(f"dim must be an integer from 1 to {MAX_DIM}", field="dim", limit=MAX_DIM)
    return int(dim)


def _as_float32(values: object, field: str) -> F32:
    _refuse_masked(values, field)
    try:
        array: npt.NDArray[Any] = np.asarray(values)
    except ValueError as error:
        raise DimensionMismatch(f"{field} are not all of one length", field=field) from error
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(f"{field} must be numbers, not {array.dtype}", field=field)
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=np.float32)
    return array if array.flags.aligned else array.copy()


def _refuse_masked(values: object, field: str) -> None:
    """What is masked has no value, and NumPy would take what lies under the mask."""
    if isinstance(values, (list, tuple)):
        masked = (i for i, one in enumerate(values) if isinstance(one, np.ma.MaskedArray) and one.mask.any())
        row = next(masked, None)
    elif isinstance(values, np.ma.MaskedArray) and values.mask.any():
        row = int(np.argwhere(values.mask)[0, 0]) if values.ndim else 0
    else:
        return
    if row is not None:
        raise InvalidVector(f"{field}[{row}] is masked", field=field, row=row)


def _check(rows: F32, first: int, metric: Metric, field: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    bad = ~(squares <= MAX_NORM**2)
    if bad.any():
        at = int(np.argmax(bad))
        what = (
            f"has a norm beyond {MAX_NORM:g}"
            if np.isfinite(rows[at]).all()
            else "holds NaN or infinity, or a number beyond float32"
        )
        raise InvalidVector(f"{field}[{first + at}] {what}", field=field, row=first + at, limit=MAX_NORM)
    if metric == "cosine":
        short = squares < MIN_NORM**2
        if short.any():
            at = int(np.argmax(short))
            what = f"has a norm below {MIN_NORM:g}, and so" if rows[at].any() else "is zero, which has"
            raise InvalidVector(
                f"{field}[{first + at}] {what} no direction under cosine",
                field=field,
                row=first + at,
                limit=MIN_NORM,
            )
