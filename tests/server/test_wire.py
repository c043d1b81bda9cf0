"""Answers as JSON."""

from __future__ import annotations

import json
import tracemalloc

import msgspec
import numpy as np
import pytest

from vecstore.rows.allowance import NUMBER_BYTES
from vecstore.server import wire
from vecstore.server.scans import scanned
from vecstore.server.wire_queries import answers
from vecstore.types import BatchHits, Hits, ScanPage

N, DIM = 2_000, 128
VECTORS = np.random.default_rng(1).standard_normal((N, DIM)).astype(np.float32)
HITS = Hits(np.arange(N, dtype=np.uint64), np.zeros(N, dtype=np.float32), 1, VECTORS)
HALF = (2, N // 2)
BATCH = BatchHits(
    HITS.ids.reshape(HALF), HITS.distances.reshape(HALF), np.full(2, N // 2), 1, VECTORS.reshape(*HALF, DIM)
)


@pytest.mark.parametrize("kind", ["search", "batch", "queries", "scan"])
def test_vectors_of_an_answer_are_never_all_lists_of_numbers(kind: str) -> None:
    """What it takes to answer is the answer, and a little for each hit; lists would be twice as much more."""
    tracemalloc.start()
    try:
        if kind == "search":
            data = wire.encode(wire.found(HITS))
        elif kind == "batch":
            data = wire.encode(wire.found_batch(BATCH))
        elif kind == "queries":
            data = wire.encode(answers([HITS]))
        else:
            data = wire.encode(scanned(ScanPage(HITS.ids, {}, {}, VECTORS, 1, None, ""), "numbers"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    told = json.loads(data)
    hits = {
        "search": lambda: told["hits"],
        "batch": lambda: [hit for one in told["results"] for hit in one["hits"]],
        "queries": lambda: told["results"][0]["hits"],
        "scan": lambda: told["rows"],
    }[kind]()
    assert np.array_equal(np.array([hit["vector"] for hit in hits], dtype=np.float32), VECTORS)
    assert peak < 1.6 * len(data) + 500 * N


def test_no_number_of_a_vector_takes_more_than_it_is_counted_as() -> None:
    bits = np.random.default_rng(2).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = np.concatenate([bits.view(np.float32), np.float32([-1.1754943508222875e-38, -1.1660218e-05])])
    sizes = [len(msgspec.json.encode(value)) for value in values[np.isfinite(values)].tolist()]
    assert max(sizes) + len(",") == NUMBER_BYTES
