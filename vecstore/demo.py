"""``make demo``: real data into a store, a real server over it, and questions to the server.

Everything lies in one temporary directory that is gone at the end, however it ends, and so is the
server. Imports the public API and the sample.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

import click
import numpy as np
from tqdm import tqdm

from vecstore.api import Database, Namespace, connect
from vecstore.errors import InvalidArgument, VecstoreError
from vecstore.sample import Sample, load_sample
from vecstore.types import F32

BATCHES: Final = 10
TOP_K: Final = 10
SHOWN: Final = 3
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 15.0


def run(folder: Path | None = None) -> None:
    """The whole demo; `VecstoreError` if the sample is missing or the server does not start."""
    sample = load_sample(folder if folder is not None else _sample_folder())
    with _room() as room:
        _load(room, sample)
        with _server(room) as url, connect(url) as database:
            _ask(database, sample)
    _next_steps()


def _load(room: Path, sample: Sample) -> None:
    rows, dim = sample.vectors.shape
    click.echo(f"\nLoading {rows:,} definitions of {dim} dimensions into {room}/data")
    began = time.perf_counter()
    with connect(str(room / "data"), maintenance="off") as database:
        ns = database.create_namespace("glosses", dim=dim, metric="cosine")
        bar = tqdm(total=rows, unit="row", desc="insert", file=sys.stdout, ncols=80, leave=True)
        with bar:
            for at in np.array_split(np.arange(rows), BATCHES):
                ns.insert(sample.vectors[at], ids=sample.ids[at])
                bar.update(len(at))
        loaded = time.perf_counter()
        done = ns.compact()
        ended = time.perf_counter()
        info = ns.stats()
    click.echo(
        f"{BATCHES} inserts in {loaded - began:.1f} s; {len(done.merged)} parts merged into "
        f"{info.parts} in {ended - loaded:.1f} s; {info.bytes / 1e6:.1f} MB, epoch {info.epoch}"
    )


def _ask(database: Database, sample: Sample) -> None:
    ns = database.namespace("glosses")
    texts = dict(zip(sample.ids.tolist(), sample.texts, strict=True))
    for query, text in list(zip(sample.query_vectors, sample.query_texts, strict=True))[:SHOWN]:
        click.echo(f"\n{text}")
        for hit in ns.search(query, top_k=4):
            click.echo(f"   {hit.distance:.3f}  {_cut(texts[hit.id])}")
    recall, times, share = _measure(ns, sample)
    p50, p90, p99 = np.percentile(times, [50, 90, 99]) * 1e3
    click.echo(
        f"\n{len(times)} held-out definitions, top {TOP_K}, default settings\n"
        f"   recall@{TOP_K} against exact search   {recall:.3f}\n"
        f"   rows scanned                     {share:.1%} of {len(sample.ids):,}\n"
        f"   latency over HTTP                {p50:.2f} ms median, {p90:.2f} ms p90, {p99:.2f} ms p99"
    )


def _measure(ns: Namespace, sample: Sample) -> tuple[float, list[float], float]:
    """Recall, seconds of each query over HTTP, and the share of rows that were scanned."""
    exact = _exact(sample)
    times, found, scanned = [], 0, 0
    for query, right in zip(sample.query_vectors, exact, strict=True):
        began = time.perf_counter()
        hits = ns.search(query, top_k=TOP_K)
        times.append(time.perf_counter() - began)
        found += len(right & {int(i) for i in hits.ids})
    for query in sample.query_vectors:
        debug = ns.search(query, top_k=TOP_K, debug=True).debug or {}
        scanned += int(debug["rows_scanned"])
    queries = len(exact)
    return found / (TOP_K * queries), times, scanned / (queries * len(sample.ids))


def _exact(sample: Sample) -> list[set[int]]:
    """The ids of the nearest rows by NumPy."""

    def unit(vectors: F32) -> F32:
        lengths: F32 = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / lengths

    scores = unit(sample.query_vectors) @ unit(sample.vectors).T
    nearest = np.argpartition(-scores, TOP_K, axis=1)[:, :TOP_K]
    return [set(sample.ids[row].tolist()) for row in nearest]


def _next_steps() -> None:
    click.echo(
        """
Try next
   make serve                 a server on ./data at http://127.0.0.1:8080; then, in another shell:
   curl localhost:8080/v1/namespaces -H 'Content-Type: application/json' \\
        -d '{"name": "notes", "dim": 3, "metric": "l2"}'
   curl localhost:8080/v1/namespaces/notes/parts -H 'Content-Type: application/json' \\
        -d '{"ids": ["a", "b"], "vectors": [[0, 0, 1], [1, 0, 0]]}'
   curl localhost:8080/v1/namespaces/notes/search -H 'Content-Type: application/json' \\
        -d '{"vector": [0, 0, 0.9], "top_k": 1}'
   .venv/bin/vecstore --help  ingest .npy, .fvecs, .jsonl and Parquet, search, compact, …
"""
    )


def _sample_folder() -> Path:
    """``examples/glosses`` of the checkout that this package lies in, or else of the current folder."""
    for root in (Path(__file__).parent.parent, Path.cwd()):
        if (root / "examples" / "glosses").is_dir():
            return root / "examples" / "glosses"
    raise InvalidArgument(
        "the sample is in examples/glosses of a checkout; name it with --data", field="data"
    )


def _cut(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


@contextmanager
def _room() -> Iterator[Path]:
    """A temporary directory that goes also when SIGTERM or SIGHUP ends us."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    room = Path(tempfile.mkdtemp(prefix="vecstore-demo-"))
    try:
        yield room
    finally:
        with suppress(KeyboardInterrupt):  # a second Ctrl-C does not leave the directory behind
            shutil.rmtree(room, ignore_errors=True)
        shutil.rmtree(room, ignore_errors=True)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _server(room: Path) -> Iterator[str]:
    """A real server over the store, on a free port of loopback; its log is shown if it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = room / "server.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("VECSTORE_")}
    if "VECSTORE_SIMD" in os.environ:
        env["VECSTORE_SIMD"] = os.environ["VECSTORE_SIMD"]
    env["VECSTORE_CONFIG"] = str(room / "vecstore.toml")  # the demo's own, empty
    (room / "vecstore.toml").touch()
    command = [sys.executable, "-m", "vecstore.cli", "serve", str(room / "data"), "--workers", "1"]
    click.echo(f"Starting the server on {url}")
    with log.open("wb") as sink:
        # A session of its own: Ctrl-C reaches us, and we end it in order.
        process = subprocess.Popen(  # noqa: S603  (our own command)
            [*command, "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=env,
            start_new_session=True,
        )
    try:
        _await_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _await_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    from vecstore.client import HttpBackend

    backend = HttpBackend(url, timeout=5.0, attempts=1)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            backend.ping()
        except VecstoreError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise VecstoreError(
                    f"the server did not start: {log.read_text(errors='replace')[-2000:] or error}"
                ) from error
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)  # wakes early if it ends
        else:
            backend.close()
            return
