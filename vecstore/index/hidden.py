"""A view but for some of its rows, which is searched like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vecstore.index.view import View
from vecstore.rows.bits import RowBits


def without(view: View, hidden: Mapping[int, RowBits], *, whole: View | None) -> View:
    """The view without rows of its parts, by their numbers; dead rows among them are no matter.

    Parameters
    ----------
    whole
        What `View.whole` shall be: a view if the rows have to do with what is asked, as under a filter.
    """
    parts = {part.number: part for part in view.parts}
    for number, rows in hidden.items():
        live, empty = parts[number].live.only(~rows)
        parts[number] = replace(parts[number], live=live, empty=empty)
    alive = {part.number: parts[part.number] for part in view.searched}
    searched = [part for part in alive.values() if part.live.alive]
    ground = view.field if view.ground is None else view.ground
    return replace(
        view,
        parts=tuple(parts.values()),
        searched=searched,
        alive=sum(part.live.alive for part in searched),
        field=ground.narrowed(
            [(p.number, p.live.words, p.live.empty_lists() if p.empty is None else p.empty) for p in searched]
        ),
        plans={},
        narrowed={},
        lasting=[],
        whole=whole,
        ground=ground,
    )
