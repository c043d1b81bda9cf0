"""What several modules of these tests ask."""

from __future__ import annotations

import pytest

from tests.core import clustered, generator
from tests.part.helpers import build, calibration_of, spec
from vecstore.index.recall import Calibration


@pytest.fixture(scope="module", params=["l2", "cosine", "dot"])
def calibration(request: pytest.FixtureRequest) -> Calibration:
    vectors = clustered(generator(1), 3_000, 48, spread=1.0)
    found = calibration_of(build(vectors, None, spec(48, request.param)))
    assert found is not None
    return found
