"""Values of attributes as Arrow has them, and back. Needs pyarrow, the extra ``arrow``; imported when used.

Whatever gives itself as a stream of Arrow (``__arrow_c_stream__``: tables of Arrow, data frames of pandas and
Polars) comes this way, and results go it to become one. What has no type here is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from vecstore.errors import InvalidArgument, InvalidAttribute
from vecstore.rows.schema import element_type, is_array
from vecstore.types import F32, AttributeType, ScalarType

MILLISECONDS: Final = "datetime64[ms]"
# Extensions that stand for what is kept, and how; any other is a type of its own.
_STORED_AS: Final = {"arrow.bool8": "bool", "arrow.json": "string"}


def pyarrow(what: str) -> Any:
    """The module; `InvalidArgument` says which extra brings it, and what needs it."""
    try:
        import pyarrow as pa
    except ImportError:
        raise InvalidArgument(
            f"{what} needs pyarrow: pip install 'vecstore[arrow]'", field="extra", limit="arrow"
        ) from None
    return pa


def is_arrow(given: object) -> bool:
    """Whether something is a table or a column of Arrow, or of what can give itself as one."""
    return (
        hasattr(given, "__arrow_c_stream__")
        or hasattr(given, "__arrow_c_array__")
        or _is_pandas(given)  # whose columns give themselves as Arrow only from its third version on
    )


def _is_pandas(given: object) -> bool:
    return type(given).__module__.partition(".")[0] == "pandas"


def columns_of(given: Any) -> dict[str, Any]:
    """The columns of a table or data frame, in Arrow, by name; the index of one of pandas is none.

    Raises
    ------
    InvalidAttribute
        A column has no form in Arrow, or not a name of its own.
    """
    pa = pyarrow(f"a {type(given).__module__.partition('.')[0]} {type(given).__name__}")
    if _is_pandas(given) and not hasattr(given, "columns"):
        raise InvalidAttribute(
            f"attributes must be columns by name; a {type(given).__name__} is one without", field="attributes"
        )
    try:
        table = pa.Table.from_pandas(given, preserve_index=False) if _is_pandas(given) else pa.table(given)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidAttribute(f"attributes have no form in Arrow: {error}", field="attributes") from error
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidAttribute(f"attributes: two columns are named {twice!r}", field="attributes")
    return {name: table.column(name) for name in names}


def column_of(given: Any, name: str) -> Any:
    """One column, in Arrow. `InvalidAttribute` as of `columns_of`."""
    pa = pyarrow(f"a {type(given).__module__.partition('.')[0]} {type(given).__name__}")
    try:
        if _is_pandas(given):
            column = pa.Array.from_pandas(given)
        elif isinstance(given, (pa.Array, pa.ChunkedArray)):
            column = given
        else:
            column = pa.chunked_array(given) if hasattr(given, "__arrow_c_stream__") else pa.array(given)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InvalidAttribute(
            f"attributes: {name!r} has no form in Arrow: {error}", field="attributes", attribute=name
        ) from error
    return column


def values_of(column: Any, name: str) -> Sequence[Any] | npt.NDArray[Any]:
    """The values of a column of Arrow, None where one is null.

    Raises
    ------
    InvalidAttribute
        Its type is none that is kept, Arrow cannot read it, or a text of it is not UTF-8.
    """
    pa = pyarrow("a column of Arrow")
    try:
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
            if isinstance(column, pa.ChunkedArray):  # without a chunk, of some versions
                column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        return _values(pa, column, name)
    except pa.ArrowException as error:
        raise InvalidAttribute(
            f"attributes: {name!r} cannot be read from Arrow: {error}", field="attributes", attribute=name
        ) from error
    except UnicodeDecodeError as error:
        row = not_text(column)
        raise InvalidAttribute(
            f"attributes: {name!r} of row {row} is not UTF-8", field="attributes", attribute=name, row=row
        ) from error


def not_text(column: Any) -> int:
    """The first row of a column of Arrow whose text is not UTF-8, which Arrow does not look at."""
    for row, value in enumerate(column):
        try:
            value.as_py()
        except UnicodeDecodeError:
            return row
    raise AssertionError("all are, and somebody said otherwise")


def _values(pa: Any, column: Any, name: str) -> Sequence[Any] | npt.NDArray[Any]:
    kind, is_ = column.type, pa.types
    if is_.is_dictionary(kind):
        if _is_view(pa, kind.value_type):  # Polars' categories, which Arrow does not decode
            texts = column.dictionary.cast(pa.large_string())
            column = pa.DictionaryArray.from_arrays(column.indices, texts)
        return _values(pa, column.dictionary_decode(), name)
    if is_.is_null(kind):
        return [None] * len(column)
    if isinstance(kind, pa.BaseExtensionType) and kind.extension_name in _STORED_AS:
        return _values(pa, column.storage.cast(pa.type_for_alias(_STORED_AS[kind.extension_name])), name)
    if is_.is_date(kind):
        column = column.cast(pa.timestamp("ms"))
    if is_.is_timestamp(column.type):
        return _moments(column.cast(pa.int64()), column.type.unit)
    if is_.is_fixed_size_list(kind) or is_.is_large_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    if is_.is_list(column.type):
        return _lists(pa, column, name)
    if is_.is_boolean(kind) or is_.is_integer(kind) or is_.is_floating(kind):
        if not column.null_count:
            return cast(npt.NDArray[Any], column.to_numpy(zero_copy_only=False))
    elif not (_is_text(pa, kind) or _is_uuid(kind)):
        raise InvalidAttribute(
            f"attributes: {name!r} is a column of {kind}, which is of no type that is kept",
            field="attributes",
            attribute=name,
        )
    return cast(list[Any], column.to_pylist())


def _is_view(pa: Any, kind: Any) -> bool:
    view = getattr(pa.types, "is_string_view", None)
    return view is not None and bool(view(kind))


def _is_text(pa: Any, kind: Any) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_view(pa, kind)


def _is_uuid(kind: Any) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.uuid"


def _moments(counts: Any, unit: str) -> Sequence[Any] | npt.NDArray[Any]:
    """Not by way of pyarrow's ``datetime``, which asks for a package of time zones."""
    numbers = counts.fill_null(0).to_numpy(zero_copy_only=False)
    values = numbers.astype(f"datetime64[{unit}]")
    if not counts.null_count:
        return cast(npt.NDArray[Any], values)
    present = counts.is_valid().to_numpy(zero_copy_only=False)
    return [value if there else None for value, there in zip(values, present, strict=True)]


def _lists(pa: Any, column: Any, name: str) -> list[Any]:
    flat = _values(pa, column.flatten(), name)
    if isinstance(flat, np.ndarray) and flat.dtype.kind != "M":
        flat = flat.tolist()
    out: list[Any] = []
    at = 0
    for length in column.value_lengths().to_pylist():
        out.append(None if length is None else list(flat[at : at + length]))
        at += length or 0
    return out


def array_type(column: Any) -> AttributeType | None:
    """Our type of a column of lists, also where all are empty; None of any other, and of lists of no type."""
    pa = pyarrow("a column of Arrow")
    is_, kind = pa.types, _plain(pa, column.type)
    if not (is_.is_list(kind) or is_.is_large_list(kind) or is_.is_fixed_size_list(kind)):
        return None
    element = _plain(pa, kind.value_type)
    known: dict[AttributeType, bool] = {
        "[]bool": is_.is_boolean(element),
        "[]int": is_.is_signed_integer(element),
        "[]uint": is_.is_unsigned_integer(element),
        "[]float": is_.is_floating(element),
        "[]datetime": is_.is_date(element) or is_.is_timestamp(element),
        "[]uuid": _is_uuid(element),
        "[]string": _is_text(pa, element),
    }
    return next((ours for ours, fits in known.items() if fits), None)


def _plain(pa: Any, kind: Any) -> Any:
    """What a dictionary, or an extension that we take, stands for."""
    if pa.types.is_dictionary(kind):
        return _plain(pa, kind.value_type)
    stored_as = _STORED_AS.get(getattr(kind, "extension_name", ""))
    return kind if stored_as is None else pa.type_for_alias(stored_as)


def arrow_type(kind: AttributeType) -> Any:
    """The type of Arrow for one of ours: a UUID is text, a datetime in milliseconds of UTC."""
    pa = pyarrow("Arrow")
    scalars: dict[ScalarType, Any] = {
        "string": pa.string(),
        "int": pa.int64(),
        "uint": pa.uint64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "datetime": pa.timestamp("ms", "UTC"),
        "uuid": pa.string(),
    }
    element = scalars[element_type(kind)]
    return pa.list_(element) if is_array(kind) else element


def arrow_column(values: Sequence[Any], kind: AttributeType) -> Any:
    """An array of Arrow of values as JSON has them, None where one is null."""
    pa = pyarrow("Arrow")
    if element_type(kind) != "datetime":
        return pa.array(values, arrow_type(kind))
    if not is_array(kind):
        return pa.array(_parsed(values), arrow_type(kind))
    flat = _parsed([one for some in values for one in some or ()])
    ends = np.cumsum([0, *(len(some or ()) for some in values)])
    # Null where the offset is null: a list that is not there begins nowhere.
    offsets = [None if some is None else int(at) for some, at in zip(values, ends[:-1], strict=True)]
    elements = pa.array(flat, arrow_type("datetime"))
    return pa.ListArray.from_arrays(pa.array([*offsets, int(ends[-1])], pa.int32()), elements)


def _parsed(values: Sequence[str | None]) -> npt.NDArray[Any]:
    """datetime64 of what `vecstore.rows.values` writes, which is always UTC and ends in Z."""
    return np.array(["NaT" if value is None else value[:-1] for value in values], dtype=MILLISECONDS)


def rows_as_table(
    ids: npt.NDArray[Any],
    columns: Mapping[str, Sequence[Any]],
    types: Mapping[str, AttributeType],
    vectors: F32 | None,
    more: Mapping[str, npt.NDArray[Any]] | None = None,
    *,
    metadata: Mapping[str, str] | None = None,
) -> Any:
    """A table of ids, what else there is, a column an attribute, and vectors, null where there are none."""
    pa = pyarrow("Arrow")
    strings = ids.dtype == object
    fields = [pa.field("id", pa.string() if strings else pa.uint64(), nullable=False)]
    arrays = [pa.array(ids, fields[0].type)]
    for name, values in (more or {}).items():
        arrays.append(pa.array(values))
        fields.append(pa.field(name, arrays[-1].type, nullable=False))
    if vectors is not None:
        dim = vectors.shape[1]
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1), pa.float32())
        # Without a vector, an earlier server does not tell the dimension.
        kind = pa.list_(pa.float32(), dim or -1)
        if not dim:
            arrays.append(pa.array([None] * len(vectors), kind))
        elif np.isnan(vectors[:, 0]).any():
            arrays.append(pa.array([None if np.isnan(one[0]) else one for one in vectors], kind))
        else:
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=kind))
        fields.append(pa.field("vector", kind))
    for name, kind in types.items():
        fields.append(pa.field(name, arrow_type(kind)))
        arrays.append(arrow_column(columns[name], kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata))


def to_pandas(table: Any) -> Any:
    """A data frame; integers and bools of its columns may be missing without becoming floats."""
    pa = pyarrow("pandas")
    try:
        import pandas as pd
    except ImportError:
        raise InvalidArgument(
            "to_pandas needs pandas: pip install 'vecstore[pandas]'", field="extra", limit="pandas"
        ) from None
    kinds = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.to_pandas(types_mapper=kinds.get)
