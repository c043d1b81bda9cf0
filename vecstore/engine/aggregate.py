"""Aggregates over the rows of a view, exact: the columns that are asked for, part after part."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final

from vecstore import deadline
from vecstore.errors import InvalidArgument
from vecstore.index.ordered import attribute_of
from vecstore.index.view import OpenPart, View, read_side_by_side
from vecstore.manifest.model import Attribute, Manifest
from vecstore.part.rows import PartRows
from vecstore.rows.aggregates import Aggregator, presence_in, rows_at_once, values_in
from vecstore.rows.allowance import Allowance
from vecstore.storage.cache import ReadTrace
from vecstore.types import AggregateParams, Aggregates, Aggregation, AttributeType

NUMBERS: Final = ("int", "uint", "float")


def aggregate(
    view: View,
    params: AggregateParams,
    allowance: Allowance,
    trace: ReadTrace,
    executor: Callable[[], Executor],
) -> Aggregates:
    """What is asked of all live rows of a view.

    Raises
    ------
    InvalidArgument
        An attribute that is not there or of another type, or too many groups or distinct values, or too long
        ones.
    """
    manifest = view.manifest
    grouped = {name: attribute_of(manifest, name, field="group_by") for name in params.group_by}
    asked: dict[str, tuple[Aggregation, AttributeType | None]] = {}
    wanted: dict[str, Attribute] = {}
    for label, one in params.aggregate_by:
        known = _attribute(manifest, label, one)
        asked[label] = (one, None if known is None else known.type)
        if one.attribute is not None and known is not None:
            wanted[one.attribute] = known
    columns = {**grouped, **wanted}
    read = {*grouped, *(one.attribute for one, _ in asked.values() if one.function != "Count")}
    if not view.mapped:
        reads = [partial(_fetch, part, columns) for part in view.searched]
        read_side_by_side(reads, trace, executor)
    aggregator = Aggregator(asked, {name: known.type for name, known in grouped.items()}, allowance)
    for part in view.searched:
        source = PartRows(part.reader, trace)
        readers = {name: source.column(name, known.id) for name, known in columns.items()}
        alive = part.live.rows()
        step = rows_at_once(readers[name] for name in columns if name in read)
        for start in range(0, len(alive), step):
            deadline.check()
            rows = alive[start : start + step]
            values = {
                name: (values_in if name in read else presence_in)(readers[name], rows, known.type)
                for name, known in columns.items()
            }
            aggregator.add(len(rows), [values[name] for name in grouped], values)
    found = aggregator.answer()
    if not params.group_by:
        return Aggregates(manifest.epoch, found[0][1], None, manifest.incarnation)
    groups = [{**dict(zip(grouped, keys, strict=True)), **results} for keys, results in found]
    return Aggregates(manifest.epoch, None, groups, manifest.incarnation)


def _attribute(manifest: Manifest, label: str, one: Aggregation) -> Attribute | None:
    if one.attribute is None:
        return None
    field = f"aggregate_by.{label}"
    known = attribute_of(manifest, one.attribute, field="aggregate_by", at=field)
    if one.function in ("Sum", "Avg") and known.type not in NUMBERS:
        raise InvalidArgument(
            f"{field} is {one.function}, which takes numbers; {one.attribute!r} is {known.type}",
            field="aggregate_by",
            at=field,
            limit=list(NUMBERS),
        )
    return known


def _fetch(part: OpenPart, columns: dict[str, Attribute], trace: ReadTrace) -> None:
    source = PartRows(part.reader, trace)
    found = [source.column(name, known.id) for name, known in columns.items()]
    source.fetch([span for one in found if one is not None for span in one.spans(inverted=False)])
