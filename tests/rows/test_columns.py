"""What a part says of a column is held against the column's type before anybody sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
from vecstore.errors import StorageCorrupt
from vecstore.rows import attributes
from vecstore.rows.values import Elements

ROWS = np.eye(8, 4, dtype=np.float32)


@pytest.mark.parametrize(
    ("kind", "given", "stored"),
    [
        ("string", "text", np.array([b"\xd3("] * 8, dtype=object)),
        ("uuid", "12345678-1234-5678-1234-567812345678", np.array([b"short"] * 8, dtype=object)),
        ("datetime", "2026-11-26", np.full(8, (1 << 64) - 1, dtype=np.uint64)),
    ],
)
@pytest.mark.parametrize(
    "ask",
    [
        lambda ns: ns.get(3),
        lambda ns: ns.search(ROWS[0], 3, include=["a"]),
        lambda ns: list(ns.scan()),
        lambda ns: ns.aggregate({"n": ["Count"]}, group_by=["a"]),
    ],
    ids=["get", "search", "scan", "aggregate"],
)
def test_what_can_be_no_value_is_corrupt(
    kind: str, given: str, stored: Elements, ask: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with vecstore.connect(str(tmp_path), maintenance="off") as db:
        ns = db.create_namespace("ns", 4, "l2", schema={"a": {"type": kind}})
        with monkeypatch.context() as patch:
            patch.setattr(attributes, "keys_of", lambda *_: stored)
            ns.insert(ROWS, range(8), attributes={"a": [given] * 8})
        with pytest.raises(StorageCorrupt, match="'a' is malformed"):
            ask(ns)
