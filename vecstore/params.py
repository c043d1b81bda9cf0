"""Options of searches, of measurements of recall and what other calls share, validated once, at the door.

Imports errors, limits, types and the syntax of filters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, TypeGuard, TypeVar, get_args

import numpy as np

from vecstore.errors import InvalidArgument, VecstoreError
from vecstore.limits import (
    MAX_AGGREGATES,
    MAX_ATTRIBUTE_NAME_BYTES,
    MAX_GROUP_BY,
    MAX_IDEMPOTENCY_KEY_BYTES,
    MAX_NAMES,
    MAX_PAGE_SIZE,
    MAX_QUERIES,
    MAX_SCAN_ROWS,
    MAX_TOGETHER,
    MAX_TOP_K,
)
from vecstore.rows.filters import filter_bytes, parse_filter
from vecstore.types import (
    AggregateFunction,
    AggregateParams,
    Aggregation,
    Expected,
    Moment,
    Order,
    Query,
    RecallSample,
    RowId,
    ScanParams,
    SearchParams,
    StoredRow,
)

P = TypeVar("P", SearchParams, AggregateParams, Moment)

CONFIDENCES = (0.5, 0.999)
ETAG: Final = re.compile(r"([0-9A-Za-z_]{1,64})-([0-9]{1,19})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FILTER = SearchParams.__slots__.index("filter")


def search_params(*values: Any) -> SearchParams:
    """Checked parameters from the values of their fields, in order."""
    try:
        return _known_params(*values)
    except TypeError:  # a value that cannot be hashed, and will be refused by name
        return check_params(SearchParams(*map(plain, values)))


@lru_cache(maxsize=1_024, typed=True)
def _known_params(*values: Any) -> SearchParams:
    params = SearchParams(*map(plain, values))
    if params.filter is None:
        return check_params(params)
    _known_params(*values[:_FILTER], None, *values[_FILTER + 1 :])  # the others are seldom new with it
    parse_filter(params.filter)
    return params


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
    if options.get("order_by") is not None:
        options["order_by"] = ordered_by(options["order_by"])
    if options.get("limit_per_group") is not None:
        options["limit_per_group"] = per_group(options["limit_per_group"])
    if options.get("filter") is not None:
        options["filter"] = filter_bytes(options["filter"])
    return SearchParams(top_k=plain(top_k), **options)


def query_of(
    vector: object | None, identity: RowId | None, itself: bool, order: object | None = None
) -> object:
    """What neighbours are asked of: a vector, or the stored row of an id; None if hits come in an order.

    `InvalidArgument` if it is not one of the three.
    """
    itself = flag("include_self", itself)
    if (vector is not None) + (identity is not None) + (order is not None) != 1:
        raise InvalidArgument("a search has one of a vector, an id and order_by", field="vector")
    return vector if identity is None else StoredRow(plain(identity), itself)


def plain(value: Any) -> Any:
    """A number of NumPy, and a string of any kind, as Python's own, which can also cross a wire."""
    if isinstance(value, str):
        return str.__str__(value)
    return value.item() if isinstance(value, np.generic) else value


def included(names: object, field: str = "include") -> tuple[str, ...]:
    """What a search is to include, or not; `InvalidArgument` if it is no list."""
    if not is_list(names):
        raise InvalidArgument(f"{field} must be a list of names", field=field)
    return tuple(map(plain, names))


def check_names(names: Sequence[str] | None, field: str) -> None:
    """`InvalidArgument` for more names than there are attributes, and ``"vector"``."""
    if len(names or ()) > MAX_NAMES:
        raise InvalidArgument(f"{field} must name at most {MAX_NAMES}", field=field, limit=MAX_NAMES)


def ordered_by(given: object) -> Order:
    """What hits are ordered by; `InvalidArgument` if it is no pair of an attribute and a direction."""
    if (
        not is_list(given)
        or len(given) != 2
        or not isinstance(given[0], str)
        or given[1] not in ("asc", "desc")
    ):
        raise InvalidArgument(
            'order_by must be [attribute, "asc" | "desc"]', field="order_by", limit=["asc", "desc"]
        )
    return plain(given[0]), plain(given[1])


def per_group(given: object) -> tuple[str, int]:
    """How many hits may share a value; `InvalidArgument` if it is no pair of an attribute and a number."""
    if not is_list(given) or len(given) != 2 or not isinstance(given[0], str):
        raise InvalidArgument("limit_per_group must be [attribute, number]", field="limit_per_group")
    most = plain(given[1])
    if not is_integer(most) or not 1 <= most <= MAX_TOP_K:
        raise InvalidArgument(
            f"limit_per_group must be [attribute, number], the number from 1 to {MAX_TOP_K}",
            field="limit_per_group",
            limit=MAX_TOP_K,
        )
    return plain(given[0]), most


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
        raise refuse("target_recall", "above 0 and below 1", 1.0)
    scale = params.rerank_scale
    if scale is not None and (not is_number(scale) or not 0.0 <= scale <= 1000.0):
        raise refuse("rerank_scale", "from 0 to 1000", 1000)
    if params.rerank_precision not in (None, "none", "int8", "fp32"):
        raise refuse("rerank_precision", '"none", "int8" or "fp32"', ["none", "int8", "fp32"])
    check_moment(params)
    flag("debug", params.debug)
    if params.max_distance is not None and not is_number(params.max_distance):
        raise refuse("max_distance", "a finite number", None)
    if params.order_by is not None:
        ordered_by(params.order_by)
        for name in ("max_distance", "limit_per_group"):
            if getattr(params, name) is not None:
                raise InvalidArgument(
                    f"{name} has no place where hits come in the order of an attribute", field=name
                )
    if params.limit_per_group is not None:
        per_group(params.limit_per_group)
    if not all(isinstance(name, str) for name in (*params.include, *(params.exclude or ()))):
        raise InvalidArgument("include and exclude are lists of strings", field="include")
    for field, names in (("include", params.include), ("exclude", params.exclude)):
        check_names(names, field)
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
            plain(order),
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
        check_names(names, field)
    if params.exclude is not None and set(params.include or ()) - {"vector"}:
        raise InvalidArgument("include names attributes, or exclude does; not both", field="exclude")
    if params.cursor is not None and not isinstance(params.cursor, str):
        raise InvalidArgument("cursor is not one that a scan returned", field="cursor")
    check_epoch(params.epoch)
    if params.filter is not None:
        parse_filter(params.filter)
    return params


def aggregate_params(given: object, group_by: object = (), filter: object = None) -> AggregateParams:
    """``{label: [function, attribute]}``, and attributes to group by. `InvalidArgument` names the place."""
    if not isinstance(given, Mapping) or not 1 <= len(given) <= MAX_AGGREGATES:
        raise InvalidArgument(
            f"aggregate_by must be an object of 1 to {MAX_AGGREGATES} labels",
            field="aggregate_by",
            limit=MAX_AGGREGATES,
        )
    if not is_list(group_by) or len(group_by) > MAX_GROUP_BY or len(set(map(str, group_by))) < len(group_by):
        raise InvalidArgument(
            f"group_by must be a list of at most {MAX_GROUP_BY} different attributes",
            field="group_by",
            limit=MAX_GROUP_BY,
        )
    for name in group_by:
        if not isinstance(name, str) or name in given:
            raise InvalidArgument(
                f"group_by names {name!r}, which has to be an attribute and no label of aggregate_by",
                field="group_by",
            )
    data = None
    if filter is not None:
        data = filter if isinstance(filter, bytes) else filter_bytes(filter)
        parse_filter(data)
    asked = tuple((check_label(label), _aggregation(label, one)) for label, one in given.items())
    return AggregateParams(asked, tuple(map(plain, group_by)), data)


def several(given: object) -> list[Query | AggregateParams]:
    """Searches and aggregations by their options; `InvalidArgument` names which one is wrong."""
    if not is_list(given) or not 1 <= len(given) <= MAX_TOGETHER:
        raise InvalidArgument(
            f"queries must be a list of 1 to {MAX_TOGETHER}", field="queries", limit=MAX_TOGETHER
        )
    found = []
    for i, options in enumerate(given):
        with told_of(i):
            if not isinstance(options, Mapping):
                raise InvalidArgument("a query is an object of options", field="queries")
            found.append(_query(dict(options)))
    return found


def _query(options: dict[str, Any]) -> Query | AggregateParams:
    if "aggregate_by" in options:
        for name in options:
            if name not in ("aggregate_by", "group_by", "filter"):
                raise InvalidArgument(f"an aggregation among others has no option {name!r}", field=name)
        return aggregate_params(options["aggregate_by"], options.get("group_by", ()), options.get("filter"))
    for name in ("consistency", "max_staleness", "epoch"):
        if name in options:
            raise InvalidArgument(f"{name} is one for all queries of a request", field=name)
    asked = query_of(
        options.pop("vector", None),
        options.pop("id", None),
        options.pop("include_self", False),
        options.get("order_by"),
    )
    return Query(asked, check_params(params_of(options.pop("top_k", 10), options)))


@contextmanager
def told_of(query: int) -> Iterator[None]:
    """An error says which query of several it is about."""
    try:
        yield
    except VecstoreError as error:
        error.details.setdefault("query", query)
        raise


def check_label(label: object) -> str:
    """The name of a result."""
    if (
        not is_utf8(label)
        or not 1 <= len(label.encode()) <= MAX_ATTRIBUTE_NAME_BYTES
        or not label.isprintable()
    ):
        raise InvalidArgument(
            f"aggregate_by: a label must be 1 to {MAX_ATTRIBUTE_NAME_BYTES} bytes of printable UTF-8",
            field="aggregate_by",
            limit=MAX_ATTRIBUTE_NAME_BYTES,
        )
    return str.__str__(label)


def _aggregation(label: str, given: Any) -> Aggregation:
    functions = get_args(AggregateFunction)
    known = is_list(given) and len(given) in (1, 2) and given[0] in functions
    if (
        known
        and all(isinstance(name, str) for name in given[1:])
        and (len(given) == 2 or given[0] == "Count")
    ):
        return Aggregation(*map(plain, given))
    place = f"aggregate_by.{label}"
    raise InvalidArgument(
        f'{place} must be ["Count"] or [function, attribute], the function one of {", ".join(functions)}',
        field="aggregate_by",
        at=place,
        limit=list(functions),
    )


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """A string is none."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def check_moment(params: P) -> P:
    """Which epoch is read; `InvalidArgument` names the field and its limit."""
    if params.consistency not in ("strong", "eventual"):
        raise InvalidArgument(
            'consistency must be "strong" or "eventual"', field="consistency", limit=["strong", "eventual"]
        )
    if not is_number(params.max_staleness) or params.max_staleness < 0:
        raise InvalidArgument(
            "max_staleness must be a finite number of seconds, at least 0", field="max_staleness", limit=0
        )
    check_epoch(params.epoch)
    return params


def check_batch(params: SearchParams) -> SearchParams:
    """`InvalidArgument` for what a batch of vectors cannot have."""
    if params.order_by is not None:
        raise InvalidArgument("a search has vectors or order_by, not both", field="order_by")
    return params


def check_epoch(epoch: int | None) -> int | None:
    """`InvalidArgument` if it can be no epoch; None stands for the current one."""
    epoch = plain(epoch)
    if epoch is not None and (not is_integer(epoch) or epoch < 1):
        raise InvalidArgument("epoch must be an integer of at least 1", field="epoch", limit=1)
    return epoch


def expected_of(given: object) -> Expected | None:
    """What ``if_match`` asks a namespace to be at; `InvalidArgument` if it is no epoch of an incarnation."""
    if given is None:
        return None
    if isinstance(given, str):
        match = ETAG.fullmatch(given)
        if match is not None:
            return match[1], int(match[2])
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        incarnation, epoch = given[0], plain(given[1])
        if isinstance(incarnation, str) and is_integer(epoch) and 0 <= epoch < 10**19:
            match = ETAG.fullmatch(f"{str.__str__(incarnation)}-{epoch}")
            if match is not None:
                return match[1], int(match[2])
    raise InvalidArgument(
        "if_match must be (incarnation, epoch), or the etag that stats() tells", field="if_match"
    )


def check_key(key: object) -> str | None:
    """An idempotency key; None stands for none. `InvalidArgument` if it is no string of UTF-8.

    Nor one that HTTP would carry as another key: that drops blanks at the ends of a header.
    """
    if key is None:
        return None
    if is_utf8(key) and key and key == key.strip() and not _CONTROL.search(key):
        return str.__str__(key)
    raise InvalidArgument(
        f"an idempotency key is a string of 1 to {MAX_IDEMPOTENCY_KEY_BYTES} bytes of UTF-8, "
        "without control characters, and without blanks at its ends",
        field="idempotency_key",
        limit=MAX_IDEMPOTENCY_KEY_BYTES,
    )


def check_page(prefix: str, after: str | None, limit: int) -> int:
    """`InvalidArgument` names what can be none of a listing; the limit as a number of Python."""
    for field, text in (("prefix", prefix), ("after", "" if after is None else after)):
        if not is_utf8(text):
            raise InvalidArgument(f"{field} must be text that is UTF-8", field=field)
    size = plain(limit)
    if not is_integer(size) or not 1 <= size <= MAX_PAGE_SIZE:
        raise InvalidArgument(
            f"page_size must be an integer from 1 to {MAX_PAGE_SIZE}", field="page_size", limit=MAX_PAGE_SIZE
        )
    found: int = size
    return found


def required_epoch(epoch: int) -> int:
    """As `check_epoch`, where there has to be one."""
    checked = check_epoch(epoch)
    if checked is None:
        raise InvalidArgument("epoch must be given", field="epoch", limit=1)
    return checked


def check_rows(ids: object, filter: object) -> None:
    """`InvalidArgument` unless a write names its rows by ids or by a filter."""
    if (ids is None) == (filter is None):
        raise InvalidArgument("either ids or a filter must be given", field="ids")


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


def flag(name: str, value: object) -> bool:
    """A bool of Python's or NumPy's; `InvalidArgument` for what only counts as one."""
    found = plain(value)
    if not isinstance(found, bool):
        raise InvalidArgument(f"{name} must be true or false", field=name)
    return found


def is_number(value: object) -> bool:
    """Finite as a float, which not every integer is; a bool is none."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    )


def is_utf8(value: object) -> TypeGuard[str]:
    """A string that has a form in UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
