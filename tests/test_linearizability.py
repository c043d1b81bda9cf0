"""The checker of histories is itself checked: on histories made by hand, and against trying all orders."""

from __future__ import annotations

import math
from itertools import combinations, permutations
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.linearizability import Operation, State, contradiction, find_order


def read(began: float, ended: float, value: State) -> Operation:
    return Operation("read", began, ended, value)


def write(began: float, ended: float, value: int, found: bool | None = None) -> Operation:
    return Operation("upsert", began, ended, value, found)


def insert(began: float, ended: float, value: int) -> Operation:
    return Operation("insert", began, ended, value)


def clash(began: float, ended: float) -> Operation:
    return Operation("clash", began, ended)


def delete(began: float, ended: float, found: bool | None = None) -> Operation:
    return Operation("delete", began, ended, None, found)


NEVER = math.inf

GOOD = {
    "nothing": [],
    "a read of nothing": [read(0, 1, None)],
    "what was written is read": [write(0, 1, 7), read(2, 3, 7)],
    "a read beside a write sees the old or the new": [
        write(0, 1, 1),
        write(2, 5, 2),
        read(3, 4, 1),
        read(3, 4, 2),
    ],
    "a write that is slow takes effect late": [write(0, 9, 1), read(1, 2, None), read(3, 4, 1)],
    "two writes at once, in either order": [write(0, 9, 1), write(0, 9, 2), read(10, 11, 1)],
    "a read goes before the write that it began after": [write(0, 9, 1), read(1, 8, None)],
    "an unknown write that nobody saw": [write(0, 1, 1), write(2, NEVER, 2), read(3, 4, 1)],
    "an unknown write that was seen": [write(0, 1, 1), write(2, NEVER, 2), read(3, 4, 2), read(5, 6, 2)],
    "an unknown write that lands late": [write(0, NEVER, 2), write(1, 2, 1), read(3, 4, 1), read(5, 6, 2)],
    "an unknown delete, much later": [write(0, 1, 1), delete(2, NEVER), read(3, 4, 1), read(5, 6, None)],
    "an unknown insert into nothing": [insert(0, NEVER, 1), read(1, 2, 1)],
    "an unknown read says nothing": [write(0, 1, 1), read(2, NEVER, 5), read(3, 4, 1)],
    "deleted and written anew": [write(0, 1, 1), delete(2, 3, True), read(4, 5, None), insert(6, 7, 2)],
    "a clash beside the write that it met": [write(0, 9, 1), clash(1, 8)],
    "counts": [write(0, 1, 1, False), write(2, 3, 2, True), delete(4, 5, True), delete(6, 7, False)],
    "an unread unknown write explains a count": [write(0, NEVER, 1), delete(5, 6, True)],
    "an insert after an unknown delete": [write(0, 1, 1), delete(2, NEVER), insert(3, 4, 2), read(5, 6, 2)],
}

BAD = {
    "a stale read": [write(0, 1, 1), write(2, 3, 2), read(4, 5, 1)],
    "a lost first write": [write(0, 1, 1), read(2, 3, None)],
    "a lost update": [write(0, 1, 1), write(2, 9, 2), write(2, 9, 3), read(10, 11, 1)],
    "a resurrected delete": [write(0, 1, 1), delete(2, 3), read(4, 5, 1)],
    "a resurrected delete, after it was seen gone": [
        write(0, 1, 1),
        delete(2, 9),
        read(3, 4, None),
        read(5, 6, 1),
    ],
    "a value that nobody wrote": [write(0, 1, 1), read(2, 3, 5)],
    "a value from the future": [read(0, 1, 1), write(2, 3, 1)],
    "new, then old, beside the write": [write(0, 1, 1), write(2, 9, 2), read(3, 4, 2), read(5, 6, 1)],
    "an unknown write that was seen and then was not": [
        write(0, 1, 1),
        write(2, NEVER, 2),
        read(3, 4, 2),
        read(5, 6, 1),
    ],
    "an unknown write that was seen and then was nothing": [
        write(2, NEVER, 2),
        read(3, 4, 2),
        read(5, 6, None),
    ],
    "an unknown write that was seen before it was sent": [read(0, 1, 2), write(2, NEVER, 2)],
    "an unknown write that took effect twice": [
        write(0, NEVER, 1),
        read(1, 2, 1),
        write(3, 4, 2),
        read(5, 6, 2),
        read(7, 8, 1),
    ],
    "two readers see two writes in two orders": [
        write(0, 20, 1),
        write(0, 20, 2),
        read(1, 2, 1),
        read(3, 4, 2),
        read(5, 6, 1),
    ],
    "an insert over a row": [write(0, 1, 1), insert(2, 3, 2)],
    "two inserts at once": [insert(0, 9, 1), insert(0, 9, 2)],
    "a clash with nothing": [write(0, 1, 1), delete(2, 3), clash(4, 5)],
    "an upsert that found a deleted row": [write(0, 1, 1), delete(2, 3, True), write(4, 5, 2, True)],
    "an upsert that did not find the row": [write(0, 1, 1), write(2, 3, 2, False)],
    "two deletes of one row": [write(0, 1, 1), delete(2, 9, True), delete(2, 9, True)],
    "a delete that missed": [write(0, 1, 1), delete(2, 3, False)],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_can_be_explained_is(name: str) -> None:
    assert find_order(GOOD[name]) is not None
    assert contradiction(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_cannot_be_explained_is_not(name: str) -> None:
    assert find_order(BAD[name]) is None
    assert find_order(BAD[name][::-1]) is None, "the order in which it was noted down is of no account"


def test_the_first_answer_that_contradicts_is_named() -> None:
    wrong = read(4, 5, 1)
    history = [write(0, 1, 1), write(2, 3, 2), wrong, read(6, 7, 2), write(8, 9, 3), read(10, 11, 2)]
    assert contradiction(history) == wrong
    # Until the second reader, the open write may have been the last of the two.
    late = read(7, 8, 1)
    assert contradiction([write(0, 9, 1), write(0, 3, 2), read(4, 5, 1), read(5.5, 6, 2), late]) == read(
        5.5, 6, 2
    )


def test_a_long_history_under_contention_with_many_unknown_writes_is_explained() -> None:
    history: list[Operation] = []
    for at in range(300):
        history += [write(at, at + 3.5, at), read(at + 2, at + 4.5, at)]
        if at % 8 == 0:
            history.append(write(at, NEVER, 10_000 + at))
    assert find_order(history) is not None
    assert find_order([*history, read(500, 501, 0)]) is None


# -- histories that chance makes ----------------------------------------------------------------

Kind = Literal["read", "upsert", "insert", "delete"]
CALLS = st.lists(
    st.tuples(st.sampled_from(["read", "upsert", "insert", "delete"]), st.integers(0, 6), st.integers(0, 6)),
    max_size=40,
)


def carried_out(calls: list[tuple[Kind, int, int]], counts: bool) -> list[Operation]:
    """Call number i takes effect at time 10 i, between a call and an answer up to six calls away."""
    state: State = None
    history = []
    for i, (kind, before, after) in enumerate(calls):
        began, ended = 10.0 * i - 10 * before - 1, 10.0 * i + 10 * after + 1
        found = state is not None if counts else None
        if kind == "read":
            history.append(read(began, ended, state))
        elif kind == "upsert":
            history.append(write(began, ended, i, found))
            state = i
        elif kind == "delete":
            history.append(delete(began, ended, found))
            state = None
        elif state is None:
            history.append(insert(began, ended, i))
            state = i
        else:
            history.append(clash(began, ended))
    return history


@given(calls=CALLS, counts=st.booleans(), lost=st.sets(st.integers(0, 39)))
@settings(max_examples=200)
def test_whatever_was_carried_out_one_by_one_is_explained(
    calls: list[tuple[Kind, int, int]], counts: bool, lost: set[int]
) -> None:
    history = carried_out(calls, counts)
    order = find_order(history)
    assert order is not None
    assert_explains(order)
    for i in lost & set(range(len(history))):
        there = history[i]
        history[i] = Operation(there.kind, there.began, NEVER, there.value, None)
    assert find_order(history) is not None, "an answer that got lost takes nothing away"


def assert_explains(order: list[Operation]) -> None:
    state: State = None
    for i, operation in enumerate(order):
        assert operation.fits(state)
        state = operation.leaves(state)
        assert all(later.ended >= operation.began for later in order[i:])


def by_trying_all_orders(history: list[Operation]) -> bool:
    known = [o for o in history if o.ended != NEVER]
    unknown = [o for o in history if o.ended == NEVER and o.kind not in ("read", "clash")]
    chosen = (some for n in range(len(unknown) + 1) for some in combinations(unknown, n))
    return any(is_order(order) for some in chosen for order in permutations([*known, *some]))


def is_order(order: tuple[Operation, ...]) -> bool:
    state: State = None
    for i, operation in enumerate(order):
        if not operation.fits(state) or any(later.ended < operation.began for later in order[i + 1 :]):
            return False
        state = operation.leaves(state)
    return True


@st.composite
def operations(draw: Any) -> Operation:
    kind = draw(st.sampled_from(["read", "upsert", "insert", "delete", "clash"]))
    began = draw(st.integers(0, 8))
    ended = draw(st.one_of(st.just(NEVER), st.integers(began, 9)))
    value = draw(st.sampled_from([None, 1, 2] if kind == "read" else [1, 2]))
    if kind in ("delete", "clash"):
        value = None
    tells = kind in ("upsert", "delete") and ended != NEVER
    return Operation(kind, began, ended, value, draw(st.sampled_from([None, True, False])) if tells else None)


@given(history=st.lists(operations(), max_size=6))
@settings(max_examples=400)
def test_it_says_the_same_as_trying_all_orders(history: list[Operation]) -> None:
    assert (find_order(history) is not None) == by_trying_all_orders(history)
