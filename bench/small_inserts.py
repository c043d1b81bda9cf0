"""Many small inserts with maintenance on: ``python -m bench.small_inserts``.

``--inserts`` of ``--batch`` rows each, by ``--writers`` threads, into a store that a process has opened with
its maintenance thread (embedded) and into one behind `vecstore serve`. Once nothing is due any more:

- parts of the namespace;
- write amplification: bytes of all parts that were ever written over bytes of the parts that the rows are in
  at the end, which is what one tidy insert of them would have written (nothing is collected meanwhile);
- bytes of manifests, each epoch's twice: as `current` and as the copy of a past epoch;
- recall@10 of the default search against exact neighbours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import vecstore
from bench import grow, sets
from tests.server.support import eventually, running_server
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.maintenance.policy import Policy, plan
from vecstore.storage.local import LocalStore

WAYS = ("embedded", "server")
SETTLE_SECONDS = 600.0


def measure(way: str, dataset: sets.Dataset, inserts: int, batch: int, writers: int) -> dict[str, Any]:
    """One way of inserting; its figures."""
    rows = dataset.base[: inserts * batch]
    with tempfile.TemporaryDirectory(prefix="vecstore-bench-") as folder:
        root = Path(folder) / "store"
        watched = EmbeddedDatabase(LocalStore(root))
        with _opened(way, root) as db:
            ns = db.create_namespace("docs", rows.shape[1], dataset.metric)
            began = time.monotonic()
            most = 0

            def insert(i: int) -> None:
                nonlocal most
                some = np.arange(i * batch, (i + 1) * batch)
                ns.insert(rows[some], some)
                if i % 100 == 0:
                    most = max(most, ns.stats().parts)

            with ThreadPoolExecutor(writers) as pool:
                list(pool.map(insert, range(inserts)))
            seconds = time.monotonic() - began
            engine = watched.namespace("docs")
            eventually("tidy parts", lambda: plan(engine.manifest(), Policy()) is None, SETTLE_SECONDS)
            found = ns.search_batch(dataset.queries, top_k=10).ids
        manifest = engine.manifest()
        written = sum(path.stat().st_size for path in root.rglob("*.part"))
        needed = sum(part.bytes for part in manifest.parts)
        manifests = sum(2 * path.stat().st_size for path in root.rglob("manifest/*.json"))
        watched.close()
    truth = dataset.gt[:, :10].tolist()
    return {
        "way": way,
        "inserts": inserts,
        "batch": batch,
        "rows": sum(part.live for part in manifest.parts),
        "seconds": seconds,
        "parts_while_inserting": most,
        "parts": len(manifest.parts),
        "part_bytes_written": written,
        "part_bytes_needed": needed,
        "amplification": written / needed,
        "manifest_bytes_written": manifests,
        "recall@10": float(
            np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth, strict=True)])
        ),
    }


@contextmanager
def _opened(way: str, root: Path) -> Iterator[Database]:
    if way == "embedded":
        with vecstore.connect(str(root)) as db:
            yield db
        return
    with running_server(root, "--workers", "1") as server, vecstore.connect(server.url) as db:
        yield db


def show(reports: list[dict[str, Any]]) -> str:
    """A table for people."""
    mib = 1 << 20
    return tabulate(
        [
            (
                r["way"],
                f"{r['inserts']:,} × {r['batch']}",
                f"{r['inserts'] / r['seconds']:.0f}",
                r["parts_while_inserting"],
                r["parts"],
                f"{r['amplification']:.1f} ×",
                f"{r['part_bytes_written'] / mib:.0f}; {r['part_bytes_needed'] / mib:.0f}",
                f"{r['manifest_bytes_written'] / mib:.0f}",
                f"{r['recall@10']:.4f}",
            )
            for r in reports
        ],
        (
            "way",
            "inserts",
            "a second",
            "most parts seen",
            "parts at the end",
            "amplification",
            "MiB of parts written; needed",
            "MiB of manifests",
            "recall@10",
        ),
        tablefmt="github",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inserts", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--into", type=Path, default=sets.OUT / "bench")
    given = parser.parse_args()
    wanted = given.inserts * given.batch
    data = grow.grown(rows=wanted)
    reports = [measure(way, data, given.inserts, given.batch, given.writers) for way in given.way or WAYS]
    given.into.mkdir(parents=True, exist_ok=True)
    (given.into / "small_inserts.json").write_text(json.dumps(reports, indent=1) + "\n")
    print(show(reports))
