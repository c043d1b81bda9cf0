"""What crosses HTTP of aggregations, as types."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from vecstore.limits import MAX_AGGREGATES, MAX_GROUP_BY
from vecstore.params import aggregate_params
from vecstore.server.wire import FilterField, given_json
from vecstore.types import AggregateFunction, AggregateParams, Aggregates, Consistency

# A function, and the attribute that it is of; only ``Count`` has none.
_Aggregation = Annotated[
    list[str],
    Meta(
        extra_json_schema={
            "anyOf": [
                {"prefixItems": [{"const": "Count"}], "minItems": 1, "maxItems": 1},
                {"prefixItems": [{"enum": list(get_args(AggregateFunction))}], "minItems": 2, "maxItems": 2},
            ],
        }
    ),
]
AggregateBy = Annotated[dict[str, _Aggregation], Meta(min_length=1, max_length=MAX_AGGREGATES)]


class Aggregate(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to compute, by label: ``["Count"]``, or a function and an attribute."""

    aggregate_by: AggregateBy
    group_by: Annotated[list[str], Meta(max_length=MAX_GROUP_BY)] = []
    filter: FilterField = msgspec.field(default_factory=msgspec.Raw)
    consistency: Consistency = "strong"
    max_staleness: Annotated[float, Meta(ge=0.0)] = 10.0
    epoch: Annotated[int, Meta(ge=1)] | None = None

    def params(self) -> AggregateParams:
        found = aggregate_params(self.aggregate_by, self.group_by, given_json(self.filter))
        return replace(
            found, consistency=self.consistency, max_staleness=self.max_staleness, epoch=self.epoch
        )


class Aggregated(Struct, kw_only=True, omit_defaults=True):
    """Results by label; with ``group_by`` of each group, beside its values."""

    epoch: int
    aggregations: dict[str, Any] | UnsetType = UNSET
    aggregation_groups: list[dict[str, Any]] | UnsetType = UNSET


def aggregated(found: Aggregates) -> Aggregated:
    """The body of the answer."""
    return Aggregated(
        epoch=found.epoch,
        aggregations=UNSET if found.values is None else found.values,
        aggregation_groups=UNSET if found.groups is None else found.groups,
    )
