"""The pages on integrations and on moving here: each snippet is run, on what the other engine wrote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

import vecstore
from vecstore.types import Row

DOCS = Path(__file__).parents[2] / "docs"
ROWS = np.random.default_rng(9).standard_normal((2_500, 8)).astype(np.float32)
ROWS /= np.linalg.norm(ROWS, axis=1, keepdims=True)
LANGS = [("en", "de", "fr")[at % 3] for at in range(len(ROWS))]


def snippet(page: str, heading: str) -> str:
    section = (DOCS / page).read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)
    return block


def run(code: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def moved(heading: str, cwd: Path) -> tuple[str, dict[Any, Row]]:
    """What a snippet of ``migrating.md`` has written: metric and rows by id."""
    run(snippet("migrating.md", heading), cwd)
    with vecstore.connect(str(cwd / "data"), maintenance="off") as db:
        ns = db.namespace("docs")
        return ns.stats().metric, {row.id: row for row in ns.scan(include=["vector", *ns.stats().schema])}


def assert_all_there(rows: dict[Any, Row], ids: list[Any], langs: bool = True) -> None:
    assert rows.keys() == set(ids)
    np.testing.assert_allclose([rows[identity].vector for identity in ids], ROWS[: len(ids)], atol=1e-6)
    if langs:
        assert [rows[identity].attributes["lang"] for identity in ids] == LANGS[: len(ids)]


def test_a_data_frame_moves(tmp_path: Path) -> None:
    ids = [f"row-{at}" for at in range(len(ROWS))]
    pd.DataFrame({"key": ids, "embedding": list(ROWS), "lang": LANGS}).to_parquet(tmp_path / "rows.parquet")
    metric, rows = moved("Data frames and arrays", tmp_path)
    assert metric == "cosine"
    assert_all_there(rows, ids)


def _flat(faiss: Any) -> tuple[Any, list[int]]:
    index = faiss.IndexFlatIP(8)
    index.add(ROWS)
    return index, list(range(len(ROWS)))


def _mapped(faiss: Any) -> tuple[Any, list[int]]:
    index = faiss.IndexIDMap(faiss.IndexFlatL2(8))
    ids = np.arange(len(ROWS)) * 7 + 3
    index.add_with_ids(ROWS, ids)
    return index, ids.tolist()


def _ivf(faiss: Any) -> tuple[Any, list[int]]:
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(8), 8, 4)
    index.train(ROWS)
    ids = np.arange(len(ROWS)) + 1_000_000
    index.add_with_ids(ROWS, ids)
    return index, ids.tolist()


@pytest.mark.parametrize(("make", "metric"), [(_flat, "dot"), (_mapped, "l2"), (_ivf, "l2")])
def test_an_index_of_faiss_moves(make: Callable[[Any], Any], metric: str, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    index, ids = make(faiss)
    faiss.write_index(index, str(tmp_path / "old.faiss"))
    found, rows = moved("FAISS", tmp_path)
    assert found == metric
    assert_all_there(rows, ids, langs=False)


def test_a_table_of_lancedb_moves(tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed")
    ids = [f"row-{at}" for at in range(len(ROWS))]
    import pyarrow as pa

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.reshape(-1)), 8)
    table = pa.table({"id": ids, "vector": vectors, "lang": LANGS})
    lancedb.connect(tmp_path / "lance").create_table("docs", table)
    _, rows = moved("LanceDB", tmp_path)
    assert_all_there(rows, ids)


def test_a_collection_of_qdrant_moves(tmp_path: Path) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    ids = [str(UUID(int=at)) for at in range(250)]  # two pages
    client = qdrant.QdrantClient(path=str(tmp_path / "qdrant"))
    client.create_collection(
        "docs", vectors_config=qdrant.models.VectorParams(size=8, distance=qdrant.models.Distance.COSINE)
    )
    client.upsert(
        "docs",
        [
            qdrant.models.PointStruct(id=identity, vector=ROWS[at].tolist(), payload={"lang": LANGS[at]})
            for at, identity in enumerate(ids)
        ],
    )
    client.close()
    _, rows = moved("Qdrant", tmp_path)
    assert_all_there(rows, ids)


def test_an_export_of_turbopuffer_moves(tmp_path: Path) -> None:
    ids = list(range(len(ROWS)))
    with (tmp_path / "export.jsonl").open("w") as file:
        for at in range(0, len(ROWS), 1_000):
            part = slice(at, at + 1_000)
            page = {"ids": ids[part], "vectors": ROWS[part].tolist(), "attributes": {"lang": LANGS[part]}}
            file.write(json.dumps(page) + "\n")
    _, rows = moved("turbopuffer", tmp_path)
    assert_all_there(rows, ids)


def test_the_page_on_integrations_runs(tmp_path: Path) -> None:
    assert run(snippet("integrations.md", "asyncio"), tmp_path).split("\n")[0] == "['a', 'b']"
    pytest.importorskip("langchain_core")
    out = run(snippet("integrations.md", "LangChain"), tmp_path)
    assert out.splitlines()[0] == "2 a boat {'year': 2024}"
    pytest.importorskip("llama_index.core")
    assert run(snippet("integrations.md", "LlamaIndex"), tmp_path).startswith("1 ")
