"""Reads a sample of texts with their vectors, as ``examples/glosses`` holds one.

For the demo and the tests. The files are described in ``examples/README.md``; this module
imports NumPy and the errors, nothing else of the package.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from vecstore.errors import InvalidArgument
from vecstore.types import F32, U64

__all__ = ["Sample", "load_sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows with ids, vectors and texts, and queries that are not among the rows.

    Attributes
    ----------
    ids
        u64[N].
    vectors
        f32[N, D]; their length is 1 within 0.2 %.
    texts
        What each row's vector was made from.
    query_vectors
        f32[M, D].
    query_texts
        What each query's vector was made from.
    """

    ids: U64
    vectors: F32
    texts: tuple[str, ...]
    query_vectors: F32
    query_texts: tuple[str, ...]


def load_sample(folder: str | PathLike[str]) -> Sample:
    """The sample in ``folder``.

    Raises
    ------
    InvalidArgument
        A file is absent or unreadable, or files disagree about the number of rows.
    """
    path = Path(folder)
    try:
        codes = np.load(path / "vectors.i8.npy", allow_pickle=False)
        scales = np.load(path / "scales.f32.npy", allow_pickle=False)
        queries = np.load(path / "queries.f16.npy", allow_pickle=False)
        ids, texts = _read_rows(path / "rows.jsonl.gz")
        _, query_texts = _read_rows(path / "queries.jsonl.gz")
    except FileNotFoundError as error:
        raise InvalidArgument(
            f"no sample data: {error.filename} is missing; run in a checkout of vecstore, or name its folder",
            field="data",
        ) from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise InvalidArgument(f"sample data in {path} cannot be read: {error}", field="data") from error
    if not (
        codes.ndim == queries.ndim == 2
        and codes.shape[1] == queries.shape[1]
        and scales.shape == (len(ids),) == codes.shape[:1]
        and len(queries) == len(query_texts)
    ):
        raise InvalidArgument(
            f"sample data in {path}: the files disagree about rows or dimension", field="data"
        )
    return Sample(
        ids=ids,
        vectors=codes.astype(np.float32) * scales[:, None].astype(np.float32),
        texts=texts,
        query_vectors=queries.astype(np.float32),
        query_texts=query_texts,
    )


def _read_rows(path: Path) -> tuple[U64, tuple[str, ...]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return np.array([row["id"] for row in rows], dtype=np.uint64), tuple(str(row["text"]) for row in rows)
