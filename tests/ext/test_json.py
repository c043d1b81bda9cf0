"""The outline of JSON beside the objects that it would be."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from vecstore.ext.json import outline


def random_json(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(6 if depth else 4)
    if kind == 4:
        return [random_json(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 5:
        names = [rng.choice(['a"', "[", "\\"]) + str(i) for i in range(rng.randrange(4))]
        return {name: random_json(rng, depth - 1) for name in names}
    return [rng.choice(["", 'x,"]}', "\\", "ä\n"]), rng.random(), None, True][kind]


def nested(value: Any) -> int:
    if not isinstance(value, (list, dict)):
        return 0
    return 1 + max(map(nested, value.values() if isinstance(value, dict) else value), default=0)


def size(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict)) else 0


@pytest.mark.parametrize("seed", range(100))
def test_the_outline_of_json_is_that_of_its_objects(seed: int) -> None:
    rng = random.Random(seed)
    whole = random_json(rng, 4)
    while not isinstance(whole, (list, dict)):
        whole = random_json(rng, 4)
    text = json.dumps(whole, indent=rng.choice([None, 2]), ensure_ascii=rng.random() < 0.5).encode()
    n = rng.choice([len(whole), len(whole) // 2])
    ends, children, inner, depths = np.zeros((4, n), dtype=np.int64)
    assert outline(memoryview(text), ends, children, inner, depths) == len(whole)
    values = list(whole.values() if isinstance(whole, dict) else whole)[:n]
    held = [list(v.values()) if isinstance(v, dict) else v if isinstance(v, list) else [] for v in values]
    assert children.tolist() == list(map(size, values))
    assert inner.tolist() == [max(map(size, some), default=0) for some in held]
    assert depths.tolist() == list(map(nested, values))
    if isinstance(whole, list):
        starts = [1, *(ends[:-1] + 1).tolist()] if n else []
        assert [json.loads(text[a:b]) for a, b in zip(starts, ends.tolist(), strict=True)] == values


@pytest.mark.parametrize("data", [b"[", b'{"a": [1', b'["', b'["\\', b"[1]]", b"[1]}"])
def test_what_does_not_close_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="close"):
        outline(memoryview(data), *np.zeros((4, 1), dtype=np.int64))
