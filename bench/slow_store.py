"""A directory served as S3 is served from afar: ``python -m bench.slow_store FOLDER``.

Real HTTP over loopback: GET and HEAD of ``/bucket/key``, with ranges and If-None-Match, PUT with
If-Match or ``If-None-Match: *``, and the first page of a listing by prefix; no DELETE. The first byte of an
answer comes after a log-normal time, then bytes flow at a bounded rate a connection and in all. What the
server itself needs to find the bytes lies within that time. A PUT takes effect as it is answered, and is
kept in memory alone: the folder stays as it is.

The port is printed on a line of its own; the server ends with its standard input.

``POST /-/reset`` and ``GET /-/spent`` begin and read an account of requests and bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import mmap
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

P50, P99 = 0.063, 0.118  # seconds to the first byte, as published for S3
CONNECTION_RATE, TOTAL_RATE = 100e6, 400e6  # bytes a second
Z99 = 2.3263478740408408  # the normal deviate of the 99th percentile
TICK: Final = 0.001  # seconds, the finest step that the event loop's timers take
MTIME: Final = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(slots=True)
class _Transfer:
    """An answer on its way; bytes flow from ``began``, in seconds of the loop's clock."""

    connection: _Connection
    body: memoryview
    began: float
    sent: int = 0


class Shaper:
    """Lets answers flow, each within the rate of a connection and together within the rate of all."""

    def __init__(self, connection_rate: float, total_rate: float) -> None:
        self._connection_rate = connection_rate
        self._total_rate = total_rate
        self._flowing: deque[_Transfer] = deque()
        self._ticking = False
        self._last = 0.0

    def start(self, connection: _Connection, body: memoryview) -> None:
        loop = asyncio.get_running_loop()
        self._flowing.append(_Transfer(connection, body, loop.time()))
        if not self._ticking:
            self._ticking = True
            self._last = loop.time()
            loop.call_soon(self._tick)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        # At most a few steps' worth, or a pause of this process would be paid back in a burst.
        left = int(min(now - self._last + TICK, 4 * TICK) * self._total_rate)
        self._last = now
        for _ in range(len(self._flowing)):
            transfer = self._flowing.popleft()
            may = int((now - transfer.began + TICK) * self._connection_rate) - transfer.sent
            size = max(0, min(may, left, len(transfer.body) - transfer.sent))
            transfer.connection.send(transfer.body[transfer.sent : transfer.sent + size])
            transfer.sent += size
            left -= size
            if transfer.sent == len(transfer.body):
                transfer.connection.answered()
            elif not transfer.connection.closed:
                self._flowing.append(transfer)
        # Whoever got least goes first the next time.
        self._flowing.rotate(-1)
        self._ticking = bool(self._flowing)
        if self._ticking:
            loop.call_later(TICK, self._tick)


class SlowStore:
    """The objects of a folder, and what reading them has cost so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.shaper = Shaper(options.connection_rate, options.total_rate)
        self._root: Path = options.folder
        self._random = random.Random(options.seed)
        self._reads = math.log(options.p50), math.log(options.p99 / options.p50) / Z99
        self._writes = math.log(options.put_p50), math.log(options.put_p99 / options.put_p50) / Z99
        self._stall, self._stall_share = options.stall, options.stall_share
        self._maps: dict[str, memoryview] = {}
        self._written: dict[str, int] = {}
        self.requests = self.bytes = 0

    def delay(self, method: str) -> float:
        """Seconds to the first byte of the next answer."""
        stall = self._stall if self._random.random() < self._stall_share else 0.0
        centre, spread = self._writes if method == "PUT" else self._reads
        return math.exp(self._random.gauss(centre, spread)) + stall

    def find(self, path: str) -> memoryview | None:
        """The object of ``/bucket/key``."""
        key = _key(path)
        found = self._maps.get(key)
        if found is None:
            try:
                with open(self._root / key, "rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            except OSError:
                return None
            found = self._maps[key] = memoryview(mapped)
        return found

    def listed(self, query: str) -> memoryview:
        """The first page of ``ListObjectsV2``, by prefix."""
        asked = dict(parse_qsl(query))
        below = (str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file())
        keys = sorted(key for key in {*below, *self._written} if key.startswith(asked.get("prefix", "")))
        some = keys[: int(asked.get("max-keys", 1_000))]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(found)}</Size><ETag>{self.etag(f'/bucket/{key}')}</ETag>"
            "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            for key in some
            if (found := self.find(f"/bucket/{key}")) is not None
        )
        more = str(len(some) < len(keys)).lower()
        return memoryview(
            f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{contents}</ListBucketResult>".encode()
        )

    def etag(self, path: str) -> str:
        """Of an object that there is: how often it was written; the folder's have not been."""
        return f'"{hash(_key(path)) & (2**64 - 1):016x}-{self._written.get(_key(path), 0)}"'

    def put(self, path: str, headers: dict[str, str], body: bytes) -> tuple[str, str, memoryview]:
        """Write an object, if its conditions hold: status line, more headers, body."""
        found = self.find(path)
        wanted = headers.get("if-match")
        if (headers.get("if-none-match") == "*" and found is not None) or (
            wanted is not None and (found is None or wanted != self.etag(path))
        ):
            return (
                "412 Precondition Failed",
                "",
                memoryview(b"<Error><Code>PreconditionFailed</Code></Error>"),
            )
        self._maps[_key(path)] = memoryview(body)
        self._written[_key(path)] = self._written.get(_key(path), 0) + 1
        return "200 OK", f"ETag: {self.etag(path)}\r\n", memoryview(b"")


def _key(path: str) -> str:
    return unquote(path).lstrip("/").partition("/")[2]


class _Connection(asyncio.Protocol):
    """One client; it sends its next request when the last was answered."""

    def __init__(self, store: SlowStore) -> None:
        self._store = store
        self._buffer = b""
        self._continued = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            if "expect" in headers and not self._continued:
                self._continued = True
                self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        self._continued = False
        self._buffer = rest[size:]
        method, target, _ = first.split(" ")
        self._answer(method, target, headers, rest[:size])

    def send(self, data: bytes | memoryview) -> None:
        if len(data) and not self.closed:
            self._transport.write(data)

    def answered(self) -> None:
        if self._buffer:
            self.data_received(b"")

    def _answer(self, method: str, target: str, headers: dict[str, str], data: bytes) -> None:
        store = self._store
        if target.startswith("/-/"):
            body = json.dumps({"requests": store.requests, "bytes": store.bytes}).encode()
            if target == "/-/reset":
                store.requests = store.bytes = 0
            self.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        asyncio.get_running_loop().call_later(
            store.delay(method), self._carry_out, method, target, headers, data
        )

    def _carry_out(self, method: str, target: str, headers: dict[str, str], data: bytes) -> None:
        store = self._store
        path, _, query = target.partition("?")
        put = method == "PUT"
        if "list-type=2" in query:
            status, more, body = "200 OK", "", store.listed(query)
        else:
            status, more, body = store.put(path, headers, data) if put else _respond(store, path, headers)
        store.requests += 1
        store.bytes += len(data) if put else len(body) if method == "GET" else 0
        date = f"Date: {formatdate(usegmt=True)}\r\n"
        self.send(f"HTTP/1.1 {status}\r\n{date}Content-Length: {len(body)}\r\n{more}\r\n".encode())
        store.shaper.start(self, memoryview(b"") if method == "HEAD" else body)


def _respond(store: SlowStore, path: str, headers: dict[str, str]) -> tuple[str, str, memoryview]:
    """Status line, more headers, body."""
    found = store.find(path)
    if found is None:
        return "404 Not Found", "", memoryview(b"<Error><Code>NoSuchKey</Code></Error>")
    # Nobody else writes to the folder meanwhile, so an object's place may stand for its content.
    etag = store.etag(path)
    more = f"ETag: {etag}\r\nLast-Modified: {MTIME}\r\nAccept-Ranges: bytes\r\n"
    if headers.get("if-none-match") == etag:
        return "304 Not Modified", more, memoryview(b"")
    wanted = headers.get("range")
    if wanted is None:
        return "200 OK", more, found
    start, _, last = wanted.removeprefix("bytes=").partition("-")
    first, stop = int(start), min(int(last) + 1, len(found))
    if first >= len(found):
        return "416 Range Not Satisfiable", "", memoryview(b"<Error><Code>InvalidRange</Code></Error>")
    return (
        "206 Partial Content",
        f"{more}Content-Range: bytes {first}-{stop - 1}/{len(found)}\r\n",
        found[first:stop],
    )


@contextlib.contextmanager
def distant(folder: Path, *options: str) -> Iterator[str]:
    """The endpoint of a slow store over ``folder``, in a process of its own."""
    command = [sys.executable, "-m", "bench.slow_store", str(folder), *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()


async def _serve(options: argparse.Namespace) -> None:
    store = SlowStore(options)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(store), "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = loop.create_future()
    loop.add_reader(sys.stdin, lambda: None if os.read(0, 4096) or ended.done() else ended.set_result(None))
    await ended
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a folder as a slow, distant S3.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--p50", type=float, default=P50, help="seconds to the first byte")
    parser.add_argument("--p99", type=float, default=P99)
    parser.add_argument("--put-p50", type=float, default=P50, help="the same of a PUT")
    parser.add_argument("--put-p99", type=float, default=P99)
    parser.add_argument("--connection-rate", type=float, default=CONNECTION_RATE, help="bytes a second")
    parser.add_argument("--total-rate", type=float, default=TOTAL_RATE)
    parser.add_argument("--stall-share", type=float, default=0.0, help="answers that take longer, ...")
    parser.add_argument("--stall", type=float, default=2.0, help="... by so many seconds")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
