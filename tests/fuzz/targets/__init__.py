"""What is fuzzed: each target runs one input, and raises what is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.fuzz.targets import filters, kernels, requests, stores

Target = Callable[[bytes], None]

TARGETS: Final[dict[str, Target]] = {
    "part": stores.part,
    "manifest": stores.manifest,
    "tombstone": stores.tombstone,
    "requests": requests.request,
    "filters": filters.filters,
    "kernels": kernels.kernels,
}
