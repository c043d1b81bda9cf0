"""What a namespace is made with, checked. Imports errors, invalid, types and the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

import msgspec

from vecstore.errors import InvalidArgument
from vecstore.invalid import invalid
from vecstore.manifest.model import Settings
from vecstore.types import Metric


def check_metric(given: object) -> Metric:
    """`InvalidArgument` if it is none."""
    known = sorted(get_args(Metric))
    if not isinstance(given, str) or given not in known:
        raise InvalidArgument('metric must be "cosine", "l2" or "dot"', field="metric", limit=known)
    return cast(Metric, given)


def updated_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """``settings`` with ``changes``; `InvalidArgument` names the field that is wrong."""
    try:
        result = msgspec.convert({**msgspec.to_builtins(settings), **changes}, Settings)
    except msgspec.ValidationError as error:
        raise invalid(error, "defaults") from error
    if result.k_min > result.k_max:
        raise InvalidArgument("settings: k_min exceeds k_max", field="k_min")
    return result
