"""How many requests a process works on at once, whose turn is next, and until when (decision 0029).

At most so many run, at most so many wait, and of slow ones fewer: a queue is bounded by the time that its
last would wait. Of the searches among those that run few work at once, the others wait for storage
(`vecstore.aside`): threads that work take the interpreter from each other at each step that lets go of it.
Namespaces take turns, whatever each of them sends: a busy one waits behind itself. Where the queue is full,
room is made by refusing the latest request of the namespace that waits with most; whoever waits with most
itself is refused, with 429, and told so a second later. A request that is not answered in its time is
stopped (`vecstore.deadline`), and that it has waited counts.

A place is held until the answer is there, not until it is sent: who reads slowly holds a thread of
gunicorn's, of which there are more than places (`vecstore.server.gunicorn_conf`).
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from vecstore import aside, deadline
from vecstore.errors import DeadlineExceeded, InvalidArgument, TooManyRequests, VecstoreError
from vecstore.server.paths import EXEMPT, FAILED, namespace_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HELD_REFUSALS: Final = 2  # times as many as may wait
REFUSAL_SECONDS: Final = 1.0  # as long as a client is told to wait (Retry-After)

# What may take as long as it does, unless it asks for less. Ids and tags may be named like it.
_UNBOUNDED: Final = re.compile(r"/v1/namespaces/[^/]+/compact")

# Short, and many: few of them work at once. What may work for seconds would keep the others waiting.
_SHORT: Final = re.compile(r"/v1/namespaces/[^/]+/(search|queries)")
_SHORT_BYTES: Final = 64 << 10  # of a body; a larger one brings many vectors

_WEIGHT: Final = 0.1  # of the latest request in what a place is held for
_LONGEST: Final = 1.0  # seconds that count of one request, so that a compaction is soon forgotten


class Admission:
    """WSGI: requests in turn to ``app``; those that are refused to ``flask``, which words the answer.

    Parameters
    ----------
    running, working, waiting
        Requests at most. Those that come back from storage are let work however many there are.
    patience
        Seconds that the last in the queue may have to wait, as things go, where more wait than run.
    timeout
        Seconds that a request may take at most, and does by default.
    clock
        Seconds since the Unix epoch, as proxies tell them in ``X-Request-Start``.
    """

    def __init__(
        self,
        app: WSGIApplication,
        flask: WSGIApplication,
        *,
        running: int,
        working: int,
        waiting: int,
        patience: float,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._app = app
        self._flask = flask
        self._timeout = timeout
        self._clock = clock
        self._turns = Turns(running, working, waiting, patience)
        self._refusals = Refusals(HELD_REFUSALS * waiting, REFUSAL_SECONDS)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in EXEMPT:
            return self._app(environ, start_response)
        token = None
        try:
            token = deadline.begin(self._ends(environ, path))
            turn = self._turns.enter(path, short=_is_short(environ, path))
        except VecstoreError as error:
            if isinstance(error, TooManyRequests):
                self._refusals.hold()
            if token is not None:
                deadline.end(token)
            environ[FAILED] = error
            return self._flask(environ, start_response)
        try:
            with aside.working(turn):
                return self._app(environ, start_response)
        finally:
            turn.end()
            deadline.end(token)

    def _ends(self, environ: dict[str, Any], path: str) -> float | None:
        """By when a request must be answered, in monotonic seconds."""
        asked = environ.get("HTTP_X_REQUEST_TIMEOUT")
        if asked is None:
            if _UNBOUNDED.fullmatch(path):
                return None
            seconds = self._timeout
        else:
            seconds = min(self._timeout, _seconds(asked))
        began = environ.get("HTTP_X_REQUEST_START")
        if began is not None:
            seconds -= self._since(began)
            if seconds <= 0.0:
                raise DeadlineExceeded("the request has waited for longer than it may; nothing was done")
        return time.monotonic() + seconds

    def _since(self, began: str) -> float:
        """Seconds since a proxy got a request, ``t=1700000000.123``; 0 where that says nothing."""
        try:
            waited = self._clock() - float(began.removeprefix("t="))
        except ValueError:
            return 0.0
        return min(max(0.0, waited), self._timeout) if math.isfinite(waited) else 0.0


class Refusals:
    """How fast they follow one another. Thread-safe.

    A refusal takes a millisecond of the process, and a proxy that has it sends the next request in its
    place: told at once, they leave little of the process to those that were accepted. One that is held
    takes nothing but a thread, and the proxy refuses the rest itself (`max_conns` in ``deploy/nginx.conf``).

    Parameters
    ----------
    most
        Refusals that are held at once; what is beyond them is told at once.
    seconds
        How long each is held, or until its deadline.
    sleep
        Waits for so many seconds.
    """

    def __init__(self, most: int, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._seconds = seconds
        self._sleep = sleep
        self._places = threading.Semaphore(most)

    def hold(self) -> None:
        """Return when it is to be told."""
        if self._places.acquire(blocking=False):
            try:
                left = deadline.remaining()
                self._sleep(self._seconds if left is None else max(0.0, min(left, self._seconds)))
            finally:
                self._places.release()


class Turns:
    """Places for requests, and who gets the next one. Thread-safe.

    While somebody waits there is no place for it: who leaves hands it on, and who steps aside as well.

    Parameters
    ----------
    running, working, waiting, patience
        As of `Admission`.
    """

    def __init__(self, running: int, working: int, waiting: int, patience: float) -> None:
        self._lock = threading.Lock()
        self._places, self._running = running, 0
        self._seats, self._working = working, 0  # of searches alone
        self._most = waiting
        self._patience = patience
        self._held = 0.0  # seconds that a place is held, of late
        self._waiting = 0
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()  # the first has the next turn

    def enter(self, path: str, *, short: bool) -> Turn:
        """Take a place, perhaps after a while.

        Parameters
        ----------
        path
            Of the request.
        short
            Whether it is one of those of which few work at once.

        Raises
        ------
        TooManyRequests
            Nobody more can wait, or others than this namespace must be let wait.
        DeadlineExceeded
            It took too long.
        """
        seat = int(short)
        with self._lock:
            if self._take_place(seat):
                return Turn(self, seat)
            waiter = self._queue(namespace_of(path) or "", seat)
        left = deadline.remaining()
        if not waiter.gate.acquire(timeout=-1 if left is None else left):
            with self._lock:
                if not waiter.called:
                    self._take(waiter)
                    deadline.check()
                    raise _too_many(self._most)
        if waiter.refused:
            raise _too_many(self._most)
        return Turn(self, seat)

    def leave(self, seat: int, held: float) -> None:
        """A place is free that was held for so many seconds."""
        with self._lock:
            self._held += _WEIGHT * (min(_LONGEST, held) - self._held)
            self._running -= 1
            self._working -= seat
            self._hand_on()

    def rest(self) -> None:
        """Somebody with a seat waits for storage."""
        with self._lock:
            self._working -= 1
            self._hand_on()

    def resume(self) -> None:
        """And works again, whether there is a seat or not."""
        with self._lock:
            self._working += 1

    def _take_place(self, seat: int) -> bool:
        """With the lock held; whether there was one."""
        if self._running >= self._places or (seat and self._working >= self._seats):
            return False
        self._running += 1
        self._working += seat
        return True

    def _hand_on(self) -> None:
        """Whoever is next gets the place that has become free, if one has."""
        while (waiter := self._next()) is not None:
            self._take(waiter)
            if waiter.name in self._queues:
                self._queues.move_to_end(waiter.name)
            waiter.call()

    def _next(self) -> _Waiter | None:
        """Who has a place now: the first of a namespace, but for those who wait for a seat."""
        for queue in self._queues.values():
            for waiter in queue:
                if self._take_place(waiter.seat):
                    return waiter
        return None

    def _queue(self, name: str, seat: int) -> _Waiter:
        """Wait for a namespace; `TooManyRequests` if that cannot be."""
        queue = self._queues.get(name)
        if self._is_full():
            longest = max(self._queues.values(), key=len, default=None)
            if longest is None or len(longest) <= 1 + (len(queue) if queue is not None else 0):
                raise _too_many(self._most)
            latest = longest[-1]
            self._take(latest)
            latest.call(refused=True)
        if queue is None:
            queue = self._queues[name] = deque()
        waiter = _Waiter(name, seat)
        queue.append(waiter)
        self._waiting += 1
        return waiter

    def _is_full(self) -> bool:
        """Whether one more would have to wait for too long."""
        waiting = self._waiting - (self._places - self._running)  # there would be places for the others
        if waiting < min(self._places, self._most):
            return False
        wait = (self._waiting + 1) * self._held / self._running
        return waiting >= self._most or wait > self._patience

    def _take(self, waiter: _Waiter) -> None:
        """Out of the queue."""
        queue = self._queues[waiter.name]
        queue.remove(waiter)
        self._waiting -= 1
        if not queue:
            del self._queues[waiter.name]


class Turn:
    """The place of one request, of whose thread `vecstore.aside` tells when it waits."""

    __slots__ = ("_began", "_seat", "_turns")

    def __init__(self, turns: Turns, seat: int) -> None:
        self._turns = turns
        self._seat = seat
        self._began = time.monotonic()

    def leave_for_a_while(self) -> None:
        if self._seat:
            self._turns.rest()

    def come_back(self) -> None:
        if self._seat:
            self._turns.resume()

    def end(self) -> None:
        """The answer is there."""
        self._turns.leave(self._seat, time.monotonic() - self._began)


class _Waiter:
    """A request in the queue."""

    __slots__ = ("called", "gate", "name", "refused", "seat")

    def __init__(self, name: str, seat: int) -> None:
        self.name = name
        self.seat = seat
        self.called = self.refused = False
        self.gate = threading.Lock()
        self.gate.acquire()

    def call(self, *, refused: bool = False) -> None:
        """Its turn has come, or never will."""
        self.called, self.refused = True, refused
        self.gate.release()


def _is_short(environ: WSGIEnvironment, path: str) -> bool:
    """Whether it asks for little, as far as can be told before its body is read."""
    if _SHORT.fullmatch(path) is None or "HTTP_CONTENT_ENCODING" in environ:
        return False
    length = environ.get("CONTENT_LENGTH") or ""
    return length.isdecimal() and int(length) <= _SHORT_BYTES


def _too_many(limit: int) -> TooManyRequests:
    return TooManyRequests(
        f"the server is busy and {limit} requests wait already; try again later", limit=limit
    )


def _seconds(text: str) -> float:
    try:
        seconds = math.nan if "_" in text else float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise InvalidArgument(
            "X-Request-Timeout must be a finite number of seconds above 0", field="X-Request-Timeout", limit=0
        )
    return seconds
