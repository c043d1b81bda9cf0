"""What crosses HTTP of several queries on one epoch, as types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_GROUP_BY, MAX_TOGETHER
from vecstore.params import aggregate_params, check_params, told_of
from vecstore.server.bodies import decode_json, items
from vecstore.server.wire import AnySearch, Neighbour, found, given_json
from vecstore.server.wire_aggregate import AggregateBy, aggregated
from vecstore.types import (
    AggregateParams,
    Aggregates,
    AttributeType,
    Consistency,
    Hits,
    IdKind,
    Moment,
    Query,
)


class OneQuery(AnySearch, forbid_unknown_fields=True, kw_only=True):
    """A search, as it goes alone, or an aggregation (``aggregate_by``)."""

    aggregate_by: AggregateBy | None = None
    group_by: Annotated[list[str], Meta(max_length=MAX_GROUP_BY)] = msgspec.field(default_factory=list)

    def asked(self) -> Query | AggregateParams:
        """`InvalidArgument` for options that do not go together."""
        if self.aggregate_by is not None:
            self._refuse_all_but("aggregate_by", "group_by", "filter")
            return aggregate_params(self.aggregate_by, self.group_by, given_json(self.filter))
        for name in ("group_by", *Moment.__slots__):
            if getattr(self, name) != getattr(_PLAIN, name):
                raise InvalidArgument(f"a search among others has no option {name!r}", field=name)
        return Query(self.query(), check_params(self.params()))

    def _refuse_all_but(self, *known: str) -> None:
        for name in self.__struct_fields__:
            if name not in known and getattr(self, name) != getattr(_PLAIN, name):
                raise InvalidArgument(f"an aggregation among others has no option {name!r}", field=name)


_PLAIN: Final = OneQuery()
_one = msgspec.json.Decoder(OneQuery)
_list = msgspec.json.Decoder(list[Raw])


class Queries(Struct, forbid_unknown_fields=True, kw_only=True):
    """Several queries, all answered from one epoch."""

    queries: Annotated[
        Raw,
        Meta(
            extra_json_schema={
                "type": "array",
                "items": {"$ref": "#/components/schemas/OneQuery"},
                "minItems": 1,
                "maxItems": MAX_TOGETHER,
            }
        ),
    ]
    consistency: Consistency = "strong"
    max_staleness: Annotated[float, Meta(ge=0.0)] = 10.0
    epoch: Annotated[int, Meta(ge=1)] | None = None

    def asked(self) -> list[Query | AggregateParams]:
        """`InvalidArgument` says which query it is about."""
        out = []
        for i, one in enumerate(self._each()):
            with told_of(i):
                asked: OneQuery = decode_json(memoryview(one), _one, f"queries[{i}]")
                out.append(asked.asked())
        return out

    def _each(self) -> list[Raw]:
        data = memoryview(self.queries)
        if bytes(data[:1]) != b"[" or not 1 <= items(data) <= MAX_TOGETHER:
            raise InvalidArgument(
                f"queries must be a list of 1 to {MAX_TOGETHER}", field="queries", limit=MAX_TOGETHER
            )
        return _list.decode(data)

    def moment(self) -> Moment:
        return Moment(self.consistency, self.max_staleness, self.epoch)


class OneAnswer(Struct, kw_only=True, omit_defaults=True):
    """Hits of a search, with the types of their attributes, or results of an aggregation.

    ``id_kind`` and ``dim`` are those of `Found`.
    """

    hits: list[Neighbour] | UnsetType = UNSET
    id_kind: IdKind | UnsetType = UNSET
    dim: int | UnsetType = UNSET
    types: dict[str, AttributeType] | UnsetType = UNSET
    aggregations: dict[str, Any] | UnsetType = UNSET
    aggregation_groups: list[dict[str, Any]] | UnsetType = UNSET
    debug: dict[str, Any] | UnsetType = UNSET


class Answers(Struct, kw_only=True):
    """The answers in the order of the queries."""

    results: list[OneAnswer]
    epoch: int


def answers(given: Sequence[Hits | Aggregates]) -> Answers:
    """The body of the answer."""
    results = []
    for one in given:
        if isinstance(one, Hits):
            told = found(one)
            results.append(
                OneAnswer(
                    hits=told.hits, id_kind=told.id_kind, dim=told.dim, types=told.types, debug=told.debug
                )
            )
        else:
            done = aggregated(one)
            results.append(
                OneAnswer(aggregations=done.aggregations, aggregation_groups=done.aggregation_groups)
            )
    return Answers(results=results, epoch=given[0].epoch)
