"""Parts that several modules read."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core import clustered, generator
from tests.part.helpers import N, Stored, build, spec
from vecstore.rows.ids import parse_ids


@pytest.fixture(scope="module")
def coded() -> Stored:
    return build(clustered(generator(1), N, 40), parse_ids(np.arange(N) * 5 + 3), spec(40))


@pytest.fixture(scope="module")
def small() -> Stored:
    how = spec(40, small_part_threshold=1 << 20)
    return build(clustered(generator(2), 90, 40), parse_ids([f"r{i}" for i in range(90)]), how)
