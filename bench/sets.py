"""The data sets of the benchmarks, each with exact neighbours of its queries.

Glosses: 60,000 WordNet definitions, 384 dimensions, cosine; from VECSTORE_BENCH_DATA
(default ``../shared/data`` beside the checkout). Fashion-MNIST: 60,000 images, 784
dimensions, squared L2; from VECSTORE_BENCH_FASHION (default where Debian's package
``dataset-fashion-mnist`` puts it). ``scaled_glosses`` is made from the glosses, and so is ``grown``,
a million rows by the recipe in `bench.grow`. ``sample`` and ``scaled_sample`` are the 10,000 glosses
that the repository ships.

Exact neighbours and the grown set are computed once and kept in VECSTORE_BENCH_CACHE (``out/cache``).
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vecstore.sample import load_sample
from vecstore.types import F32, Metric

ROOT = Path(__file__).parent.parent
OUT = ROOT / "out"
CACHE = Path(os.environ.get("VECSTORE_BENCH_CACHE", OUT / "cache"))
DEPTH = 200  # more than are ever asked for: what is left of them when rows are deleted is enough still
QUERIES = 1_000

I32 = npt.NDArray[np.int32]


class DataMissing(SystemExit):
    """A data set is not on this machine. Not caught, it prints its message and exits with status 1."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Base vectors, and held-out vectors with their exact neighbours.

    Attributes
    ----------
    base
        f32[N, D].
    held_out
        f32[M, D], M >= 1,000: vectors of the same source that are not in ``base``.
    held_out_gt
        i32[M, 200]: rows of ``base`` nearest each of them, nearest first.
    mark
        A checksum of the vectors; with it what is made of them is kept.
    """

    name: str
    metric: Metric
    base: F32
    held_out: F32
    held_out_gt: I32
    mark: str = ""

    @property
    def queries(self) -> F32:
        """The first 1,000 held-out vectors: the queries of the speed benchmark."""
        return self.held_out[:QUERIES]

    @property
    def gt(self) -> I32:
        """The exact neighbours of ``queries``."""
        return self.held_out_gt[:QUERIES]


def glosses(env: Mapping[str, str] = os.environ) -> Dataset:
    """60,000 definitions under cosine, 1,000 held out."""
    base, queries = _read_glosses(env)
    return with_neighbours("glosses384", "cosine", base, queries)


def fashion(env: Mapping[str, str] = os.environ) -> Dataset:
    """60,000 images (the training set) under squared L2, the 10,000 of the test set held out."""
    folder = Path(env.get("VECSTORE_BENCH_FASHION", "/usr/share/datasets/fashion-mnist"))
    train, test = folder / "train-images-idx3-ubyte.gz", folder / "t10k-images-idx3-ubyte.gz"
    _require(
        (train, test),
        "Fashion-MNIST: apt-get install dataset-fashion-mnist, or set VECSTORE_BENCH_FASHION to its folder",
    )
    return with_neighbours("fashion784", "l2", _read_images(train), _read_images(test))


def scaled_glosses(env: Mapping[str, str] = os.environ) -> Dataset:
    """The glosses at widely different lengths under the dot product.

    Each vector, of the base and of the queries, is multiplied by a length drawn from a log-normal
    distribution (sigma 0.5, fixed seed): the longest is about 70 times the shortest. With a larger
    sigma a few long rows would be the answer to every query.
    """
    base, queries = _read_glosses(env)
    rng = np.random.default_rng(7)
    base *= rng.lognormal(0.0, 0.5, (len(base), 1)).astype(np.float32)
    queries *= rng.lognormal(0.0, 0.5, (len(queries), 1)).astype(np.float32)
    return with_neighbours("scaled_glosses384", "dot", base, queries)


def under(dataset: Dataset, metric: Metric) -> Dataset:
    """A set under another metric; for the dot product unit vectors get lengths, as `scaled_glosses`."""
    if metric == dataset.metric:
        return dataset
    base, held_out = dataset.base, dataset.held_out
    if dataset.metric == "cosine" and metric == "dot":
        rng = np.random.default_rng(7)
        base = base * rng.lognormal(0.0, 0.5, (len(base), 1)).astype(np.float32)
        held_out = held_out * rng.lognormal(0.0, 0.5, (len(held_out), 1)).astype(np.float32)
    return with_neighbours(dataset.name, metric, base, held_out)


def held_out(dataset: Dataset, least: int = 5_000) -> Dataset:
    """The set with at least so many held-out vectors: where there are fewer, base rows are held out."""
    missing = least - len(dataset.held_out)
    if missing <= 0:
        return dataset
    missing = min(missing, len(dataset.base) // 2)
    rows = np.random.default_rng(11).permutation(len(dataset.base))
    queries = np.concatenate([dataset.held_out, dataset.base[rows[:missing]]])
    base = dataset.base[np.sort(rows[missing:])]
    return with_neighbours(f"{dataset.name}-held", dataset.metric, base, queries)


def sample() -> Dataset:
    """The shipped sample under cosine: 9,000 rows; 1,000 others and its 200 queries are held out."""
    base, held_out = _read_sample()
    return with_neighbours("sample384", "cosine", base, held_out)


def scaled_sample() -> Dataset:
    """The shipped sample at widely different lengths under the dot product, as `scaled_glosses`."""
    base, held_out = _read_sample()
    rng = np.random.default_rng(7)
    base *= rng.lognormal(0.0, 0.5, (len(base), 1)).astype(np.float32)
    held_out *= rng.lognormal(0.0, 0.5, (len(held_out), 1)).astype(np.float32)
    return with_neighbours("scaled_sample384", "dot", base, held_out)


def exact_neighbours(base: F32, queries: F32, metric: Metric, k: int, *, rows: int = 65_536) -> I32:
    """Rows of ``base`` nearest each query, nearest first; equal distances by row.

    Candidates come from float32 matrix products of blocks of ``rows``, their order from float64.
    """
    k = min(k, len(base))
    pool = min(k + 28, len(base))
    found = np.empty((len(queries), k), dtype=np.int32)
    for start in range(0, len(queries), 256):
        block = queries[start : start + 256]
        scores = np.empty((len(block), 0), dtype=np.float32)
        candidates = np.empty((len(block), 0), dtype=np.int64)
        for first in range(0, len(base), rows):
            part = base[first : first + rows]
            here = -(block @ part.T)
            if metric == "cosine":
                here /= np.linalg.norm(part, axis=1)
            elif metric == "l2":
                here += np.einsum("ij,ij->i", part, part) / 2
            some = np.argpartition(here, min(pool, len(part)) - 1, axis=1)[:, :pool]
            scores = np.hstack([scores, np.take_along_axis(here, some, axis=1)])
            candidates = np.hstack([candidates, some + first])
            some = np.argpartition(scores, min(pool, scores.shape[1]) - 1, axis=1)[:, :pool]
            scores = np.take_along_axis(scores, some, axis=1)
            candidates = np.take_along_axis(candidates, some, axis=1)
        for i, near_rows in enumerate(np.sort(candidates, axis=1)):
            near, query = base[near_rows].astype(np.float64), block[i].astype(np.float64)
            distances = ((near - query) ** 2).sum(axis=1) if metric == "l2" else -(near @ query)
            if metric == "cosine":
                distances /= np.linalg.norm(near, axis=1)
            found[start + i] = near_rows[np.argsort(distances, kind="stable")[:k]]
    return found


def with_neighbours(name: str, metric: Metric, base: F32, held_out: F32) -> Dataset:
    """A set with the exact neighbours of its held-out vectors, found once and kept."""
    mark = f"{zlib.crc32(held_out.data, zlib.crc32(base.data)):08x}"
    path = CACHE / f"gt-{name}-{metric}-{mark}.npy"
    if path.exists():
        return Dataset(name, metric, base, held_out, np.load(path), mark)
    print(
        f"{name}: exact neighbours of {len(held_out):,} queries (kept in {CACHE})",
        file=sys.stderr,
        flush=True,
    )
    neighbours = exact_neighbours(base, held_out, metric, DEPTH)
    save(path, neighbours)
    return Dataset(name, metric, base, held_out, neighbours, mark)


def normalised(dataset: Dataset) -> F32:
    """The base as engines want it whose cosine is the squared L2 of unit vectors."""
    if dataset.metric != "cosine":
        return dataset.base
    return np.ascontiguousarray(dataset.base / np.linalg.norm(dataset.base, axis=1, keepdims=True))


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, array)
    partial.replace(path)


def _read_glosses(env: Mapping[str, str]) -> tuple[F32, F32]:
    folder = Path(env.get("VECSTORE_BENCH_DATA", ROOT.parent / "shared" / "data"))
    base, queries = folder / "glosses384_base.f16.npy", folder / "glosses384_query.f16.npy"
    _require((base, queries), "glosses384: set VECSTORE_BENCH_DATA to the folder that holds the set")
    return np.load(base).astype(np.float32), np.load(queries).astype(np.float32)


def _read_sample() -> tuple[F32, F32]:
    shipped = load_sample(ROOT / "examples" / "glosses")
    rows = np.random.default_rng(11).permutation(len(shipped.vectors))
    held_out = np.concatenate([shipped.vectors[rows[:QUERIES]], shipped.query_vectors])
    return shipped.vectors[rows[QUERIES:]], held_out


def _read_images(path: Path) -> F32:
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=16)
    return pixels.reshape(-1, 784).astype(np.float32)


def _require(files: tuple[Path, ...], advice: str) -> None:
    for path in files:
        if not path.exists():
            raise DataMissing(f"{path} is missing. {advice}")


if __name__ == "__main__":
    for load in (glosses, fashion, scaled_glosses):
        data = load()
        top = data.gt[:, :10]
        print(
            f"{data.name}: {data.metric}, base {data.base.shape}, held out {data.held_out.shape}, "
            f"{len(np.unique(top)):,} rows among the ten nearest of {len(top):,} queries"
        )
