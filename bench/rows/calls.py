"""Rows 4, 5 and 12: the spread of a call's time, many queries in a call, and what is not kernel in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from bench.measure import WARM
from bench.peers.ours import Ours
from bench.rows import Run, Verdict
from bench.sets import normalised
from vecstore.api import Namespace
from vecstore.types import F32

MOST_SPREAD = 3.0
LEAST_BATCH = 1.7
LEAST_SCALING = 0.95  # of FAISS's
MOST_OUTSIDE = 8e-6
CALLS = 1_000
ROUNDS = 7
TURNS = 25  # of contenders that are measured in turn, so that a disturbance of the machine meets all of them


def latency(run: Run) -> Iterator[Verdict]:
    """Row 4: p99 over p50 of single queries at the defaults, warm; the best of several rounds."""
    for dataset in run.datasets(large=True):
        index = run.ours(dataset)
        times = _times(run, index.ns, dataset.queries)
        spreads = np.percentile(times, 99, axis=1) / np.percentile(times, 50, axis=1)
        least = times.min(axis=0)
        quiet = np.percentile(least, 99) / np.percentile(least, 50)
        spread = float(spreads.min())
        yield Verdict(
            4,
            dataset.name,
            "p99 over p50 of a single query, warm, best round",
            spread,
            f"≤ {MOST_SPREAD:g}",
            spread <= MOST_SPREAD,
            f"p50 {np.percentile(least, 50) * 1e6:.0f} µs; median round {np.median(spreads):.2f}; "
            f"of each query's least {quiet:.2f}",
        )


def batches(run: Run) -> Iterator[Verdict]:
    """Row 5: 1,000 queries in one call over one a call; two threads over one, beside FAISS's."""
    for dataset in run.datasets():
        index, queries = run.ours(dataset), dataset.queries
        with index.on_threads(1, queries) as ns:
            times = _singles(run, ns, queries)
            batches = _calls(run, lambda ns=ns, queries=queries: ns.search_batch(queries, 10))
            rounds = [(float(next(times).sum()), next(batches)) for _ in range(TURNS)]
        single, batch = (min(seconds) for seconds in zip(*rounds, strict=True))
        yield Verdict(
            5,
            dataset.name,
            f"queries/s of a batch of {len(queries):,} over single ones, same thread",
            single / batch,
            f"≥ {LEAST_BATCH}",
            single / batch >= LEAST_BATCH,
            f"{len(queries) / batch:,.0f}/s; {len(queries) / single:,.0f}/s",
        )
        if len(os.sched_getaffinity(0)) < 2:
            yield Verdict(
                5,
                dataset.name,
                "two threads over one, beside FAISS's scaling",
                None,
                f"≥ {LEAST_SCALING} of FAISS's",
                None,
                "bound to one processor: run with --processors 2",
            )
            continue
        mine, theirs = _scaling(run, index, queries), _faiss_scaling(normalised(dataset), queries)
        yield Verdict(
            5,
            dataset.name,
            "two threads over one, over FAISS's scaling",
            mine / theirs,
            f"≥ {LEAST_SCALING}",
            mine / theirs >= LEAST_SCALING,
            f"{mine:.2f} ×; FAISS {theirs:.2f} ×",
        )


def overhead(run: Run) -> Iterator[Verdict]:
    """Row 12: time of a strong call outside the stages that ``debug`` times, at the defaults."""
    for dataset in run.datasets():
        index = run.ours(dataset)
        queries = dataset.queries[:CALLS]
        times = _singles(run, index.ns, queries)
        whole, stages = np.empty((TURNS, len(queries))), np.empty((TURNS, len(queries)))
        for turn in range(TURNS):
            whole[turn] = next(times)
            for i, query in enumerate(queries):
                stages[turn, i] = sum(index.debug(query, top_k=10)["seconds"].values())
        total, inside = float(whole.min(axis=0).mean()), float(stages.min(axis=0).mean())
        outside = total - inside
        yield Verdict(
            12,
            dataset.name,
            "seconds of a strong call outside its kernels, µs",
            outside * 1e6,
            f"≤ {MOST_OUTSIDE * 1e6:g}",
            outside <= MOST_OUTSIDE,
            f"whole call {total * 1e6:.1f} µs, stages {inside * 1e6:.1f} µs (timed in calls of their own)",
        )


def _times(run: Run, ns: Namespace, queries: F32) -> np.ndarray:
    """Seconds [rounds, queries] of each call."""
    return np.array(list(islice(_singles(run, ns, queries), ROUNDS)))


def _singles(run: Run, ns: Namespace, queries: F32) -> Iterator[np.ndarray]:
    """Seconds [queries] of each call, round by round, without what the clock itself costs."""
    search, clock = ns.search, run.timer
    prepared = list(queries[:CALLS])
    for query in prepared[:WARM]:
        search(query, 10)
    tick = min(-(clock() - clock()) for _ in range(1_000))
    while True:
        times = np.empty(len(prepared))
        for i, query in enumerate(prepared):
            start = clock()
            search(query, 10)
            times[i] = clock() - start - tick
        yield times


def _calls(run: Run, call: Callable[[], object]) -> Iterator[float]:
    """Seconds of a call, time after time."""
    call()
    while True:
        start = run.timer()
        call()
        yield run.timer() - start


def _scaling(run: Run, index: Ours, queries: F32) -> float:
    """How many times sooner two threads answer a batch than one."""
    best = {}
    for threads in (1, 2):
        with index.on_threads(threads, queries) as ns:
            calls = _calls(run, lambda ns=ns: ns.search_batch(queries, 10))
            best[threads] = min(islice(calls, ROUNDS))
    return best[1] / best[2]


def _faiss_scaling(base: F32, queries: F32) -> float:
    import faiss

    from bench.peers.faiss_ivf import train

    faiss.omp_set_num_threads(1)
    index = train(f"IVF256,PQ{base.shape[1] // 4}x4fs,RFlat", base)
    faiss.extract_index_ivf(faiss.downcast_index(index.base_index)).nprobe = 32
    index.k_factor = 4
    best = {}
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        index.search(queries, 10)
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            index.search(queries, 10)
            times.append(time.perf_counter() - start)
        best[threads] = min(times)
    faiss.omp_set_num_threads(1)
    return best[1] / best[2]
