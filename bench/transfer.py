"""Export and import of the glosses with their attributes: identical, how fast, how large.

    python -m bench.transfer [--rows 60000]

The vectors of all glosses and their real attributes, in twelve parts, are exported to Parquet and to JSON
lines and imported into a namespace of its own. Every row is compared: id, attributes, bits of the vector.
Memory is what the process takes beyond what it had before, anonymous pages alone.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tabulate import tabulate

import vecstore
from bench import sets
from bench.filters import real_attributes
from vecstore.api import Namespace
from vecstore.export import export_namespace
from vecstore.ingest import import_namespace, open_file

PARTS = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60_000)
    options = parser.parse_args()
    base = sets.glosses().base[: options.rows]
    attributes = real_attributes(len(base))
    table = []
    with tempfile.TemporaryDirectory() as name, vecstore.connect(f"{name}/data", maintenance="off") as db:
        ns = db.create_namespace("docs", base.shape[1])
        for rows in np.array_split(np.arange(len(base)), PARTS):
            some = {key: [values[i] for i in rows.tolist()] for key, values in attributes.items()}
            ns.insert(base[rows], rows, attributes=some)
        for kind in ("parquet", "jsonl"):
            file = Path(name) / f"docs.{kind}"
            out = _measured(lambda file=file: export_namespace(ns, file))  # type: ignore[misc]
            into = _measured(lambda file=file, kind=kind: import_namespace(db, kind, open_file(file)))  # type: ignore[misc]
            for here, there in zip(_everything(ns), _everything(db.namespace(kind)), strict=True):
                if here != there:
                    raise SystemExit(f"{kind}: {here[:2]} came back as {there[:2]}")
            a_row = file.stat().st_size / len(base)
            table.append([kind, a_row, len(base) / out[0], out[1], len(base) / into[0], into[1]])
    print(f"{len(base):,} rows of {base.shape[1]} dimensions with {', '.join(attributes)}: identical")
    print(
        tabulate(
            table,
            ["", "bytes a row", "export rows/s", "MiB more", "import rows/s", "MiB more"],
            floatfmt=",.0f",
        )
    )


def _everything(ns: Namespace) -> Iterator[tuple[Any, bytes, bytes]]:
    info = ns.stats()
    yield info.rows, msgspec.json.encode(info.schema, order="sorted"), msgspec.json.encode(info.defaults)
    for row in ns.scan(include=["vector"], exclude=[]):
        vector = b"" if row.vector is None else row.vector.tobytes()
        yield row.id, msgspec.json.encode(row.attributes, order="sorted"), vector


def _measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and the most MiB of anonymous memory beyond what there was, looked at every 10 ms."""
    ended = threading.Event()
    before = most = _anonymous()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.01):
            most = max(most, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return time.perf_counter() - began, (most - before) / (1 << 20)


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


if __name__ == "__main__":
    main()
