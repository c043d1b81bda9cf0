"""The options of searches and of measurements of recall, validated once, at the door.

Imports errors, limits, types and the syntax of filters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_QUERIES, MAX_SCAN_ROWS, MAX_TOP_K
from vecstore.rows.filters import filter_bytes, parse_filter
from vecstore.types import RecallSample, ScanParams, SearchParams

CONFIDENCES = (0.5, 0.999)


def search_params(*values: Any) -> SearchParams:
    """Checked parameters from the values of their fields, in order."""
    try:
        return _known_params(*values)
    except TypeError:  # a value that cannot be hashed, and will be refused by name
        return _known_params.__wrapped__(*values)


@lru_cache(maxsize=1_024, typed=True)
def _known_params(*values: Any) -> SearchParams:
    return check_params(SearchParams(*map(plain, values)))


def params_of(top_k: int, options: dict[str, Any]) -> SearchParams:
    """Parameters from options by name, yet to be checked. `InvalidArgument` for a name that is none."""
    known = set(SearchParams.__slots__)
    for name in options:
        if name not in known:
            raise InvalidArgument(f"search has no option {name!r}", field=name)
    options = {name: plain(value) for name, value in options.items()}
    options["include"] = included(options.get("include", ()))
    if options.get("exclude") is not None:
        options["exclude"] = included(options["exclude"], "exclude")
    if options.get("filter") is not None:
        options["filter"] = filter_bytes(options["filter"])
    return SearchParams(top_k=plain(top_k), **options)


def plain(value: Any) -> Any:
    """A number of NumPy as Python's own, which can also cross a wire."""
    return value.item() if isinstance(value, np.generic) else value


def included(names: object, field: str = "include") -> tuple[str, ...]:
    """What a search is to include, or not; `InvalidArgument` if it is no list."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise InvalidArgument(f"{field} must be a list of names", field=field)
    return tuple(names)


def check_params(params: SearchParams) -> SearchParams:
    """`InvalidArgument` names the field and its limit."""

    def refuse(name: str, rule: str, limit: object) -> InvalidArgument:
        return InvalidArgument(f"{name} must be {rule}", field=name, limit=limit)

    if not is_integer(params.top_k) or not 1 <= params.top_k <= MAX_TOP_K:
        raise refuse("top_k", f"an integer from 1 to {MAX_TOP_K}", MAX_TOP_K)
    fraction = params.probe_fraction
    if fraction is not None and (not is_number(fraction) or not 0.0 < fraction <= 1.0):
        raise refuse("probe_fraction", "above 0 and at most 1", 1.0)
    if params.nprobe is not None and (not is_integer(params.nprobe) or params.nprobe < 1):
        raise refuse("nprobe", "an integer of at least 1", 1)
    target = params.target_recall
    if target is not None and (not is_number(target) or not 0.0 < target < 1.0):
        raise refuse("target_recall", "between 0 and 1", 1.0)
    scale = params.rerank_scale
    if scale is not None and (not is_number(scale) or not 0.0 <= scale <= 1000.0):
        raise refuse("rerank_scale", "from 0 to 1000", 1000)
    if params.rerank_precision not in (None, "none", "int8", "fp32"):
        raise refuse("rerank_precision", '"none", "int8" or "fp32"', ["none", "int8", "fp32"])
    if params.consistency not in ("strong", "eventual"):
        raise refuse("consistency", '"strong" or "eventual"', ["strong", "eventual"])
    if not is_number(params.max_staleness) or params.max_staleness < 0:
        raise refuse("max_staleness", "at least 0 seconds", 0)
    check_epoch(params.epoch)
    if not all(isinstance(name, str) for name in (*params.include, *(params.exclude or ()))):
        raise InvalidArgument("include and exclude are lists of strings", field="include")
    if params.exclude is not None and set(params.include) - {"vector"}:
        raise InvalidArgument("include names attributes, or exclude does; not both", field="exclude")
    if params.filter is not None:
        parse_filter(params.filter)
    return params


def scan_params(
    limit: int,
    order: Any,
    filter: Any,
    include: Any,
    exclude: Any,
    epoch: int | None,
    cursor: str | None,
) -> ScanParams:
    """Parameters of a scan, checked. `InvalidArgument` names the field and its limit."""
    return check_scan(
        ScanParams(
            plain(limit),
            order,
            None if filter is None else filter_bytes(filter),
            None if include is None else included(include),
            None if exclude is None else included(exclude, "exclude"),
            plain(epoch),
            cursor,
        )
    )


def check_scan(params: ScanParams) -> ScanParams:
    """`InvalidArgument` names the field and its limit."""
    if not is_integer(params.limit) or not 1 <= params.limit <= MAX_SCAN_ROWS:
        raise InvalidArgument(
            f"limit must be an integer from 1 to {MAX_SCAN_ROWS}", field="limit", limit=MAX_SCAN_ROWS
        )
    if params.order not in (None, "id", "stored"):
        raise InvalidArgument('order must be "id" or "stored"', field="order", limit=["id", "stored"])
    for field, names in (("include", params.include), ("exclude", params.exclude)):
        if not all(isinstance(name, str) for name in names or ()):
            raise InvalidArgument(f"{field} must be a list of names", field=field)
    if params.exclude is not None and set(params.include or ()) - {"vector"}:
        raise InvalidArgument("include names attributes, or exclude does; not both", field="exclude")
    if params.cursor is not None and not isinstance(params.cursor, str):
        raise InvalidArgument("cursor is not one that a scan returned", field="cursor")
    check_epoch(params.epoch)
    if params.filter is not None:
        parse_filter(params.filter)
    return params


def check_epoch(epoch: int | None) -> int | None:
    """`InvalidArgument` if it can be no epoch; None stands for the current one."""
    epoch = plain(epoch)
    if epoch is not None and (not is_integer(epoch) or epoch < 1):
        raise InvalidArgument("epoch must be an integer of at least 1", field="epoch", limit=1)
    return epoch


def required_epoch(epoch: int) -> int:
    """As `check_epoch`, where there has to be one."""
    checked = check_epoch(epoch)
    if checked is None:
        raise InvalidArgument("epoch must be given", field="epoch", limit=1)
    return checked


def check_sample(asked: RecallSample, *, given: bool) -> RecallSample:
    """`InvalidArgument` names the field and its limit; ``given``: queries come with the request."""
    if asked.source not in ("rows", "recent", "queries"):
        raise InvalidArgument('source must be "rows" or "recent"', field="source", limit=["rows", "recent"])
    if given != (asked.source == "queries"):
        raise InvalidArgument("queries are given, or source says where they come from", field="source")
    if asked.sample is not None and (not is_integer(asked.sample) or not 1 <= asked.sample <= MAX_QUERIES):
        raise InvalidArgument(
            f"sample must be an integer from 1 to {MAX_QUERIES}", field="sample", limit=MAX_QUERIES
        )
    low, high = CONFIDENCES
    if not is_number(asked.confidence) or not low <= asked.confidence <= high:
        raise InvalidArgument(
            f"confidence must be from {low} to {high}", field="confidence", limit=[low, high]
        )
    if asked.seed is not None and (not is_integer(asked.seed) or not 0 <= asked.seed < 1 << 63):
        raise InvalidArgument("seed must be an integer from 0 to 2^63 - 1", field="seed", limit=(1 << 63) - 1)
    return asked


def is_integer(value: object) -> bool:
    """A bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Finite; a bool is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf
