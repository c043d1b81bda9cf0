"""A search with nothing in memory, over a store that is as far away as S3: ``python -m bench.cold``.

`bench.slow_store` serves a namespace of 1,000,000 x 384 over real HTTP: the first byte comes after a
log-normal time (p50 63 ms, p99 118 ms), bytes at 100 MB/s a connection and 400 MB/s in all. Each query
finds an empty page cache and no manifest, in a process whose connections are open. For each way of
asking: dependent trips, requests, bytes (as the search tells them, and as the server counted them),
p50, p90, p99, and recall@10 beside exact search. Ways take turns, query by query.

``--reads`` compares ways to send a read: ``signed`` is what `S3Store` does, ``boto3`` asks boto3's own
client, ``obstore`` the Rust library of that name. ``--stalls`` lets one answer in a hundred take two
seconds more, with second requests (``hedge_share``) and without.

``--nprobe`` asks for so many lists in place of the plan for a recall. ``--many`` compares how many requests
are too many for one read, so that larger gaps between its ranges are closed (`vecstore.storage.ranges.MANY`).
``--batch`` asks so many queries in one call, and one after another, each time from empty caches on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from tabulate import tabulate

import vecstore
from bench import grow, sets
from bench.slow_store import distant
from vecstore.engine.database import EmbeddedDatabase
from vecstore.storage import ranges
from vecstore.storage.s3 import S3Store
from vecstore.storage.s3.client import Answer
from vecstore.types import F32, SearchParams

NAME = "cold"
BATCH = 125_000  # rows of an insert
K = 10
WARM = 25  # queries before the clock starts: connections are open, and what is late is known


@dataclass(slots=True)
class Way:
    """One way of asking, and what it took.

    Attributes
    ----------
    seconds, recalls, told, served
        One entry a query; ``told`` by the search itself, ``served`` by the server.
    """

    label: str
    store: S3Store
    params: SearchParams
    many: int
    seconds: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)
    told: list[dict[str, int]] = field(default_factory=list)
    served: list[dict[str, int]] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        ms = np.percentile(np.array(self.seconds) * 1e3, [50, 90, 99]).round(0).astype(int).tolist()
        most = {name: max(one[name] for one in self.told) for name in self.told[0]}
        served = {name: max(one[name] for one in self.served) for name in self.served[0]}
        return {
            "way": self.label,
            "trips": most["round_trips"],
            "requests": most["requests"],
            "served": served["requests"],
            "MB": round(float(np.mean([one["bytes"] for one in self.told])) / 1e6, 2),
            "most MB": round(most["bytes"] / 1e6, 2),
            "p50": ms[0],
            "p90": ms[1],
            "p99": ms[2],
            "recall": round(float(np.mean(self.recalls)), 3),
        }


def prepared(rows: int) -> Path:
    """A store with the grown set in one part; built once and kept."""
    folder = sets.CACHE / f"cold-{grow.RECIPE}-{rows}"
    if folder.exists():
        return folder
    print(f"building {rows:,} rows (kept in {folder})", file=sys.stderr, flush=True)
    kept = grow.stored()
    making = folder.with_suffix(".making")
    with vecstore.connect(str(making), maintenance="off") as database:
        # Too many bytes for one insert: brought in as they are, and trained when they are merged.
        namespace = database.create_namespace(NAME, dim=384, metric="cosine", small_part_threshold=1 << 32)
        step = min(BATCH, -(-rows // 2))
        for start in range(0, rows, step):
            namespace.insert(kept[start : min(rows, start + step)].astype(np.float32))
        namespace.update(small_part_threshold=200_000)
        namespace.compact()
    making.rename(folder)
    return folder


def opened(endpoint: str, reads: str, hedge_share: float) -> S3Store:
    """A store whose reads go as ``reads`` says."""
    store = S3Store(
        "bucket",
        endpoint_url=endpoint,
        region="us-east-1",
        access_key="bench",
        secret_key="bench",  # pragma: allowlist secret
        addressing_style="path",
        hedge_share=hedge_share,
    )
    client = store._client
    if reads == "boto3":
        client.read = lambda full_key, headers, key, _=None: client._read_by_boto3(full_key, headers, key)  # type: ignore[method-assign,assignment]
    elif reads == "obstore":
        client.read = _obstore_reads(endpoint)  # type: ignore[method-assign]
    return store


def _obstore_reads(endpoint: str) -> Callable[..., Answer]:
    import obstore
    from obstore.store import S3Store as Obstore

    store = Obstore(
        "bucket",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id="bench",
        secret_access_key="bench",  # pragma: allowlist secret
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    def read(
        full_key: str, headers: dict[str, str], _: str, heard: Callable[[], None] = lambda: None
    ) -> Answer:
        options: dict[str, Any] = {}
        if "Range" in headers:
            first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
            options["range"] = (int(first), int(last) + 1)
        answer = obstore.get(store, full_key, options=options)
        heard()
        found = {"etag": answer.meta["e_tag"] or "", "last-modified": ""}
        if options:
            found["content-range"] = f"bytes */{answer.meta['size']}"
        return Answer(found, bytes(answer.bytes()))

    return read


def measure(endpoint: str, ways: list[Way], queries: F32, truth: sets.I32) -> None:
    """Every query by every way in turn, each with nothing in memory."""
    for number in range(-WARM, len(queries)):
        for way in ways:
            _ask(endpoint, "reset")
            database = EmbeddedDatabase(way.store, threads=1)
            with patch.object(ranges, "MANY", way.many):
                began = time.perf_counter()
                hits = database.search(NAME, queries[number % len(queries)], way.params)
                seconds = time.perf_counter() - began
            if number < 0:
                continue
            assert hits.debug is not None
            way.seconds.append(seconds)
            way.recalls.append(len(np.intersect1d(hits.ids, truth[number, :K])) / K)
            way.told.append(hits.debug["storage"])
            way.served.append(_ask(endpoint, "spent"))


def batches(endpoint: str, queries: F32) -> list[dict[str, Any]]:
    """The same queries in one call and one after another, from an empty cache on."""
    store = opened(endpoint, "signed", 0.05)
    params = SearchParams(top_k=K)

    def together(database: EmbeddedDatabase) -> None:
        database.search_batch(NAME, queries, params)

    def in_turn(database: EmbeddedDatabase) -> None:
        for q in queries:
            database.search(NAME, q, params)

    EmbeddedDatabase(store, threads=1).search_batch(NAME, queries[:WARM], params)  # connections are open
    rows = []
    for label, ask in (("in turn", in_turn), ("in one call", together)):
        _ask(endpoint, "reset")
        began = time.perf_counter()
        ask(EmbeddedDatabase(store, threads=1))
        seconds = time.perf_counter() - began
        spent = _ask(endpoint, "spent")
        rows.append({"queries": f"{len(queries)} {label}", "s": round(seconds, 2), **spent})
    return rows


def _ask(endpoint: str, what: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{endpoint}/-/{what}") as answer:
        found: dict[str, int] = json.load(answer)
    return found


def _label(plan: str, reads: str, share: float, many: int, options: argparse.Namespace) -> str:
    hedged = f", hedged {share}" if options.stalls else ""
    return f"{plan}, {reads}{hedged}" + (f", {many} are many" if len(options.many) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure searches with empty caches over a distant store.")
    parser.add_argument("--rows", type=int, default=grow.ROWS)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--nprobe", type=int, nargs="*", default=[], help="as well as the default plan")
    parser.add_argument("--many", type=int, nargs="*", default=[ranges.MANY])
    parser.add_argument("--reads", nargs="*", choices=("signed", "boto3", "obstore"), default=["signed"])
    parser.add_argument("--stalls", action="store_true", help="one answer in a hundred takes 2 s more")
    parser.add_argument("--batch", type=int, help="queries in one call beside as many in turn, and no more")
    parser.add_argument("--into", type=Path, help="where the figures go as JSON")
    options = parser.parse_args()
    kept = grow.stored()
    if options.batch is not None:
        asked = kept[grow.ROWS : grow.ROWS + options.batch].astype(np.float32)
        with distant(prepared(options.rows)) as endpoint:
            print(tabulate(batches(endpoint, asked), headers="keys"))
        return
    queries = kept[grow.ROWS : grow.ROWS + options.queries].astype(np.float32)
    truth = sets.exact_neighbours(kept[: options.rows].astype(np.float32), queries, "cosine", K)
    plans = [("default", SearchParams(top_k=K, debug=True))]
    plans += [(f"nprobe {n}", SearchParams(top_k=K, nprobe=n, debug=True)) for n in options.nprobe]
    shares = [0.0, 0.05] if options.stalls else [0.05]
    stalls = ["--stall-share", "0.01"] if options.stalls else []
    with distant(prepared(options.rows), *stalls) as endpoint:
        ways = [
            Way(_label(plan, reads, share, many, options), store, params, many)
            for reads in options.reads
            for share in shares
            for store in [opened(endpoint, reads, share)]
            for plan, params in plans
            for many in options.many
        ]
        measure(endpoint, ways, queries, truth)
    rows = [way.row() for way in ways]
    print(tabulate(rows, headers="keys"))
    first = rows[0]
    passed = first["trips"] <= 3 and first["requests"] <= 32 and first["MB"] <= 16 and first["p50"] <= 350
    print(f"{first['way']}: 3 trips, 32 requests, mean 16 MB, p50 350 ms: {'PASS' if passed else 'FAIL'}")
    if options.into is not None:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / "cold.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
