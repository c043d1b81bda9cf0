"""Whether a recorded history of a register could have come from one that does one thing at a time.

A history is linearizable if each operation can be given an instant between its call and its answer, so
that the operations, carried out one by one in the order of these instants, give the answers that were
recorded (Herlihy & Wing 1990). Registers are independent: a history of many is linearizable if each one's
is. The search is Wing & Gong's, with Lowe's memory of what was tried; it takes no time to speak of as
long as few operations are under way at once.

An operation of which nobody knows what became may take effect at any instant after its call, or never.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

State = int | None  # the value of a register; None: there is no row
Configuration = tuple[int, int, State]  # bits of what was carried out: answered, open; and where that led

_UNREAD = -1  # stands for all values that no read has seen


@dataclass(frozen=True, slots=True)
class Operation:
    """A call and its answer.

    Attributes
    ----------
    kind
        ``insert`` writes only if there is no row; ``clash`` is one that was refused because there is.
    began, ended
        Times of call and answer by one clock; ``ended`` is infinite if the outcome is unknown.
    value
        That is written, or was read; None: no row.
    found
        Whether an upsert or a delete replaced a row, if its answer said so.
    """

    kind: Literal["read", "upsert", "insert", "delete", "clash"]
    began: float
    ended: float = math.inf
    value: State = None
    found: bool | None = None

    def fits(self, state: State) -> bool:
        """Whether its answer is the one that it gets in that state."""
        if self.kind == "read":
            return state == self.value
        if self.kind in ("insert", "clash"):
            return (state is None) == (self.kind == "insert")
        return self.found is None or self.found == (state is not None)

    def leaves(self, state: State) -> State:
        """The state after it."""
        if self.only_looks:
            return state
        return None if self.kind == "delete" else self.value

    @property
    def only_looks(self) -> bool:
        """Whether it leaves every state as it was."""
        return self.kind in ("read", "clash") or (self.kind == "delete" and self.found is False)


def find_order(history: Iterable[Operation], *, start: State = None) -> list[Operation] | None:
    """An order of the operations that explains all answers; None if there is none.

    Of those with an unknown outcome it holds the ones that must have taken effect.
    """
    every = sorted(history, key=lambda operation: operation.began)
    done = [operation for operation in every if operation.ended != math.inf]
    open_ = [operation for operation in every if operation.ended == math.inf and not operation.only_looks]
    effects = _effects(done, open_)
    finished = (1 << len(done)) - 1

    first: Configuration = (0, 0, start)
    came_from: dict[Configuration, tuple[Configuration, Operation] | None] = {first: None}
    stack = [first]
    while stack:
        here = stack.pop()
        carried_out, used, state = here
        if carried_out == finished:
            return _walk_back(came_from, here)
        horizon, candidates = _candidates(done, carried_out)
        fitting = [i for i in candidates if done[i].fits(state)]
        # Whoever only looks, and sees what it was answered, may as well look now.
        looks = [i for i in fitting if done[i].only_looks][:1]
        missing = [done[i] for i in candidates if not done[i].fits(state)]
        following: list[tuple[Configuration, Operation]] = []
        if missing and not looks:
            following = [
                ((carried_out, used | 1 << i, open_[i].leaves(state)), open_[i])
                for i in _open_candidates(open_, effects, used, horizon)
                if open_[i].fits(state) and _helps(open_[i], state, missing)
            ]
        # The last is tried first: whoever was answered first, and what was answered before what is open.
        following += [
            ((carried_out | 1 << i, used, done[i].leaves(state)), done[i])
            for i in looks or sorted(fitting, key=lambda i: -done[i].ended)
        ]
        for there, operation in following:
            if there not in came_from:
                came_from[there] = here, operation
                stack.append(there)
    return None


def contradiction(history: Sequence[Operation], *, start: State = None) -> Operation | None:
    """The operation whose answer was the first that nothing explains; None if all are explained.

    What precedes a moment of a linearizable history is linearizable, so the moment is found by halving.
    """
    answered = sorted((o for o in history if o.ended != math.inf), key=lambda operation: operation.ended)
    if find_order(history, start=start) is not None:
        return None
    low, high = 0, len(answered) - 1  # the first `low` answers can be explained, `high + 1` cannot
    while low < high:
        middle = (low + high) // 2
        if find_order(_until(history, answered[middle].ended), start=start) is not None:
            low = middle + 1
        else:
            high = middle
    return answered[low]


def _until(history: Iterable[Operation], moment: float) -> list[Operation]:
    """The history as it was known at a moment: what was not answered by then is open."""
    return [
        operation if operation.ended <= moment else replace(operation, ended=math.inf, found=None)
        for operation in history
        if operation.began <= moment and (operation.ended <= moment or not operation.only_looks)
    ]


def _candidates(done: Sequence[Operation], carried_out: int) -> tuple[float, list[int]]:
    """Those that may come next: they began before any other that is left had ended; and that time."""
    found, horizon = [], math.inf
    at = (~carried_out & (carried_out + 1)).bit_length() - 1  # the first that is left
    while at < len(done) and done[at].began <= horizon:
        if not carried_out >> at & 1:
            found.append(at)
            horizon = min(horizon, done[at].ended)
        at += 1
    return horizon, [i for i in found if done[i].began <= horizon]


def _effects(done: Sequence[Operation], open_: Sequence[Operation]) -> list[tuple[str, State]]:
    """What each open operation would do; those that do the same need not be told apart."""
    read = {operation.value for operation in done if operation.kind == "read"}
    return [
        (operation.kind, operation.value if operation.value in read else _UNREAD)
        if operation.kind in ("upsert", "insert")
        else (operation.kind, None)
        for operation in open_
    ]


def _open_candidates(
    open_: Sequence[Operation], effects: Sequence[tuple[str, State]], used: int, horizon: float
) -> list[int]:
    """Of those that would do the same, the one that began first."""
    tried: dict[tuple[str, State], int] = {}
    for i, operation in enumerate(open_):
        if not used >> i & 1 and operation.began <= horizon:
            tried.setdefault(effects[i], i)
    return list(tried.values())


def _helps(operation: Operation, state: State, missing: Iterable[Operation]) -> bool:
    """Whether an open operation is worth a try now: it can wait until an answer needs it.

    One that makes room for an open insert may be needed too, which only a delete does.
    """
    then = operation.leaves(state)
    return then != state and (then is None or any(other.fits(then) for other in missing))


def _walk_back(
    came_from: dict[Configuration, tuple[Configuration, Operation] | None], last: Configuration
) -> list[Operation]:
    order = []
    step = came_from[last]
    while step is not None:
        order.append(step[1])
        step = came_from[step[0]]
    return order[::-1]
