"""Makes examples/glosses from the full set of 60,000 WordNet glosses and their embeddings.

    python examples/make_sample.py FOLDER [--out examples/glosses]

FOLDER holds glosses384_base.f16.npy, glosses384_query.f16.npy and their *_rows.jsonl.gz.
The same input gives the same bytes: rows are drawn with a fixed seed and the gzip headers
carry no time. Needs numpy only.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

SEED = 20060101
ROWS = 10_000
QUERIES = 200
KEPT = ("id", "pos", "lex", "lemmas", "text")


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample that the demo and the tests use.")
    parser.add_argument("folder", type=Path, help="where the full set is")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "glosses")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    rng = np.random.default_rng(SEED)
    base = np.load(args.folder / "glosses384_base.f16.npy", mmap_mode="r")
    query = np.load(args.folder / "glosses384_query.f16.npy")
    base_rows = np.sort(rng.choice(len(base), ROWS, replace=False))
    query_rows = np.sort(rng.choice(len(query), QUERIES, replace=False))

    codes, scales = quantise(base[base_rows].astype(np.float32))
    np.save(args.out / "vectors.i8.npy", codes)
    np.save(args.out / "scales.f32.npy", scales)
    np.save(args.out / "queries.f16.npy", query[query_rows])
    copy_rows(args.folder / "glosses384_base_rows.jsonl.gz", args.out / "rows.jsonl.gz", base_rows)
    copy_rows(args.folder / "glosses384_query_rows.jsonl.gz", args.out / "queries.jsonl.gz", query_rows)

    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {ROWS:,} rows, {QUERIES} queries, {size / 1e6:.2f} MB")


def quantise(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Int8 codes and one scale a row, such that ``codes * scale`` is within half a step of the row."""
    scales = np.abs(vectors).max(axis=1) / np.float32(127)
    return np.rint(vectors / scales[:, None]).astype(np.int8), scales


def copy_rows(source: Path, target: Path, rows: npt.NDArray[np.int64]) -> None:
    """Copy the chosen lines, in order, with the fields that the sample keeps."""
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    text = "".join(
        json.dumps({key: records[row][key] for key in KEPT}, ensure_ascii=False, separators=(",", ":")) + "\n"
        for row in rows
    )
    target.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
