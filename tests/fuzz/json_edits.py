"""Changes of JSON: a value somewhere in it is replaced, dropped, doubled or exchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fuzz.dice import Dice


def edit(document: Any, dice: Dice) -> None:
    """Change one place of a list or object."""
    holder, key = _walk(document, dice)
    if holder is None:
        return
    kind = dice.below(8)
    if kind < 5:
        some = list(_leaves(document))
        holder[key] = dice.value(holder[key], some)
    elif kind == 5:
        del holder[key]
    elif kind == 6 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 6:
        holder[dice.of(list(holder)) + dice.of(("", "2"))] = holder[key]
    else:
        other, place = _walk(document, dice)
        if other is not None and not _within(other, holder[key]):
            other[place] = holder[key]


def _walk(document: Any, dice: Dice) -> tuple[Any, Any]:
    """A holder and a key of it, so many steps down as the dice say."""
    here, found = document, (None, None)
    for _ in range(12):
        if not isinstance(here, dict | list) or not here:
            break
        key = dice.of(list(here) if isinstance(here, dict) else range(len(here)))
        found = here, key
        here = here[key]
        if isinstance(here, dict | list) and here and dice.below(8) == 7:
            break
    return found


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for one in value.values():
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value[:50]:
            yield from _leaves(one)
    else:
        yield value


def _within(inner: Any, outer: Any) -> bool:
    """Whether ``outer`` holds ``inner``, so that to put it there would make a circle."""
    if inner is outer:
        return True
    if isinstance(outer, dict):
        return any(_within(inner, one) for one in outer.values())
    return isinstance(outer, list) and any(_within(inner, one) for one in outer)
