"""Requests at times that do not depend on the answers, on kept connections, from one process.

A closed loop slows down with its server and so never overloads it. Here each request has its time; it
is sent on a connection that is free, and its latency counts from that time, not from when it was sent.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np

_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
TIMEOUT = 60.0

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Request:
    """One as it is sent.

    Attributes
    ----------
    repeats
        Whether the client may send it again after a failure.
    about
        What the caller knows it by.
    """

    kind: str
    data: bytes
    repeats: bool = False
    about: object = None


def post(path: str, body: bytes, *, kind: str, key: str | None = None, about: object = None) -> Request:
    idempotency = f"Idempotency-Key: {key}\r\n" if key is not None else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{idempotency}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return Request(kind, head.encode() + body, key is not None, about)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt at the wire. ``status`` is 0 where there was no whole answer."""

    kind: str
    due: float
    seconds: float
    status: int
    attempt: int
    error: str = ""
    about: object = None


@dataclass(slots=True)
class Outcomes:
    """All of them; how many found no connection free, and by how many seconds this process was late."""

    all: list[Outcome] = field(default_factory=list)
    late: int = 0
    lags: list[float] = field(default_factory=list)

    def statuses(self) -> Counter[int]:
        return Counter(one.status for one in self.all)

    def accepted(self, kind: str | None = None) -> list[float]:
        return [
            one.seconds for one in self.all if 200 <= one.status < 300 and (kind is None or one.kind == kind)
        ]


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


class Client:
    """Up to so many connections to one address."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, connections: int) -> None:
        self._address = host, port
        self._tls = tls
        self._free: list[_Connection] = []
        self._places = asyncio.Semaphore(connections)

    async def send(self, request: Request, due: float, outcomes: Outcomes, attempts: int = 4) -> Outcome:
        """One request, and again with its key if it failed."""
        attempt = 0
        while True:
            attempt += 1
            status, error = 0, ""
            if self._places.locked():
                outcomes.late += 1
            async with self._places:
                try:
                    async with asyncio.timeout(TIMEOUT):
                        status = await self._once(request)
                except (OSError, EOFError, TimeoutError, ValueError) as failure:
                    error = repr(failure)
            spent = time.perf_counter() - due
            done = Outcome(request.kind, due, spent, status, attempt, error, request.about)
            outcomes.all.append(done)
            failed = status == 0 or status >= 500
            if not failed or not request.repeats or attempt == attempts:
                return done
            await asyncio.sleep(0.1 * attempt)

    async def _once(self, request: Request) -> int:
        reader, writer = await self._take()
        kept = False
        try:
            writer.write(request.data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            if length is None:
                raise ValueError(f"an answer without a length: {head[:80]!r}")
            await reader.readexactly(int(length[1]))
            kept = b"connection: close" not in head.lower()
        finally:
            if kept:
                self._free.append((reader, writer))
            else:
                writer.close()
        return int(head[9:12])

    async def open(self, connections: int) -> None:
        """Have so many open and used, so that no handshake is part of what is measured."""
        for _ in range(connections - len(self._free)):
            reader, writer = await self._open()
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")
            await reader.readuntil(b"}")
            self._free.append((reader, writer))

    async def _take(self) -> _Connection:
        while self._free:
            reader, writer = self._free.pop()
            if not reader.at_eof():  # else it was idle for too long
                return reader, writer
            writer.close()
        return await self._open()

    async def _open(self) -> _Connection:
        host, port = self._address
        return await asyncio.open_connection(host, port, ssl=self._tls, server_hostname=host)

    async def close(self) -> None:
        for _, writer in self._free:
            writer.close()


async def closed_loop(
    client: Client, connections: int, seconds: float, make: Callable[[], Request]
) -> Outcomes:
    """As many requests at once as there are connections: what a server can do at most."""
    outcomes, end = Outcomes(), time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < end:
            await client.send(make(), time.perf_counter(), outcomes, attempts=1)

    await asyncio.gather(*(one() for _ in range(connections)))
    outcomes.late = 0
    return outcomes


async def open_loop(
    client: Client, rate: float, seconds: float, make: Callable[[], Request], rng: Random, outcomes: Outcomes
) -> None:
    """Requests at random times, ``rate`` a second in the mean; returns when all are answered."""
    began = time.perf_counter()
    due, running = began, set[asyncio.Task[Outcome]]()
    while True:
        due += rng.expovariate(rate)
        if due > began + seconds:
            break
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        outcomes.lags.append(time.perf_counter() - due)
        task = asyncio.create_task(client.send(make(), due, outcomes))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
