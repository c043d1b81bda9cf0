"""How well a part's lists hold a query's neighbours: blocks to scan for a share of the true ten nearest.

    python -m bench.partition [--set glosses] [--weight 0 --weight 0.25]

Lists are ranked as a query ranks them, by the centroids' own codes, and scanned until the mean share of
the ten nearest that lie in them is .95 or .99. No re-ranking and no pool has a part in this.
Seconds are processor time of the training.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from bench import sets
from vecstore.ext.ivf import rank_lists
from vecstore.ext.rabitq import QueryTable, encode_rabitq
from vecstore.ext.train import list_spread
from vecstore.index.ivf import Partition, capacity_for, lists_for
from vecstore.index.rotation import Rotation
from vecstore.index.training import train
from vecstore.manifest.model import Settings
from vecstore.part.builder import SPREAD_WEIGHT, mean_of, prepare
from vecstore.types import F32

BLOCK = 32
TARGETS = (0.95, 0.99)
SETS = {"glosses": sets.glosses, "fashion": sets.fashion, "sample": sets.sample}


def rotated(dataset: sets.Dataset) -> tuple[F32, F32]:
    """Base and queries as a part has them: centred and rotated."""
    rotation, mean = Rotation(dataset.base.shape[1], 7), mean_of(dataset.base, dataset.metric)
    base, queries = (prepare(rows, dataset.metric) for rows in (dataset.base, dataset.queries))
    return rotation.apply(base, mean), rotation.apply(queries, mean)


def divided(z: F32, settings: Settings, seed: int) -> Partition:
    """The lists of a part, no row held out."""
    k = lists_for(*z.shape, settings)
    return train(z, k, seed=seed, capacity=capacity_for(len(z), k, settings))


def ranks(partition: Partition, z: F32, queries: F32, weight: float) -> npt.NDArray[np.int32]:
    """i32[M, K]: the lists of each query, the nearest first."""
    spread = np.empty(partition.k, dtype=np.float32)
    list_spread(z, partition.order, partition.starts, partition.centroids, partition.scales, spread)
    shift = np.float32(-weight) * spread
    exact = partition.centroids.astype(np.float32) * partition.scales[:, None]
    bounds = partition.cell_lists
    codes = np.concatenate(
        [
            encode_rabitq(exact[first:last], centre, shift[first:last])
            for first, last, centre in zip(bounds[:-1], bounds[1:], partition.cells, strict=True)
        ]
    )
    table = QueryTable(z.shape[1])
    out = np.empty((len(queries), partition.k), dtype=np.int32)
    for i, query in enumerate(queries):
        table.prepare(query, 0.0)
        out[i] = rank_lists(table, partition.cells, bounds, codes, partition.k)
    return out


def blocks_needed(
    partition: Partition, order: npt.NDArray[np.int32], gt: npt.NDArray[np.int32]
) -> list[float]:
    """Mean blocks of the lists that must be scanned for each of ``TARGETS``."""
    sizes = np.diff(partition.starts)
    list_of = np.empty(len(partition.order), dtype=np.int64)
    list_of[partition.order] = np.repeat(np.arange(partition.k), sizes)
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(partition.k, dtype=np.int32)[None, :], axis=1)
    needed = np.take_along_axis(place, list_of[gt[:, :10]], axis=1)
    coverage = np.bincount(needed.ravel(), minlength=partition.k).cumsum() / needed.size
    scanned = np.cumsum(-(-sizes // BLOCK)[order], axis=1).mean(axis=0)
    return [float(scanned[int(np.argmax(coverage >= target))]) for target in TARGETS]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="default: glosses, fashion")
    parser.add_argument("--weight", action="append", type=float, help="of a list's spread in its rank")
    parser.add_argument(
        "--rows", action="append", type=int, help="list_rows; 0 sets K = cluster_factor * sqrt(N)"
    )
    parser.add_argument("--seed", action="append", type=int, help="default: 1, 2")
    args = parser.parse_args()
    for name in args.set or ("glosses", "fashion"):
        dataset = SETS[name]()
        z, queries = rotated(dataset)
        for rows in args.rows or (Settings().list_rows,):
            for seed in args.seed or (1, 2):
                start = time.process_time()
                partition = divided(z, Settings(list_rows=rows), seed)
                seconds = time.process_time() - start
                blocks = int((-(-np.diff(partition.starts) // BLOCK)).sum())
                print(
                    f"{dataset.name}, list_rows {rows}, seed {seed}: {partition.k:,} lists, {blocks:,} "
                    f"blocks, {len(z) / (BLOCK * blocks):.1%} of the slots filled, {seconds:.1f} s"
                )
                for weight in args.weight or (0.0, float(SPREAD_WEIGHT)):
                    needed = blocks_needed(partition, ranks(partition, z, queries, weight), dataset.gt)
                    found = ", ".join(f"{n:.1f} for {t}" for n, t in zip(needed, TARGETS, strict=True))
                    print(f"  blocks to scan, weight {weight:.2f}: {found}", flush=True)


if __name__ == "__main__":
    main()
