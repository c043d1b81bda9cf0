"""Gunicorn's threaded worker: answers in one piece, all threads from the start, even shares, and readiness.

Gunicorn sends head and body of an answer by two calls. A worker that is killed in between leaves a proxy
with a head that it has passed on, so that it cannot ask another worker any more (`deploy/nginx.conf`). And
it ends the workers of before a reload when it has forked new ones, which take a second or two until they
answer.

A pool starts a thread when there is a request for it, in gunicorn's main loop, which then waits until it
runs. With eight requests that hold the interpreter in turn this takes some 20 ms a thread: when an overload
began, new connections waited for more than a second until they were taken (decision 0029).

Workers share one listening socket, and whoever is idle takes a new connection first. But a connection that is
kept stays where it is, and a proxy prefers those that it used last: sixteen of them could all be one
worker's, while the other had nothing to do. So a worker with several requests at once lets go of a
connection now and then, for another to take.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from vecstore.errors import InvalidArgument

PARTED: Final = 8  # of so many requests that come while others are under way, one ends its connection
_TOGETHER: Final = 256 << 10  # bytes of a body up to which it is worth a copy


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """What `vecstore.server.gunicorn_conf` names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counting = threading.Lock()
        self._under_way = 0
        self._crowded = 0  # requests that came while others were under way

    @property
    def ready(self) -> bool:
        """Whether it answers; known in its parent too, by the file that they share."""
        return os.fstat(self.tmp.fileno()).st_size > 0

    def load_wsgi(self) -> None:
        """Start all threads, and load the application.

        Gunicorn makes the pool before it sets the handlers of signals. Threads take a second or two, and
        until then a SIGTERM goes to the handler of the parent, which notes it down for nobody.
        """
        self._start_threads()
        super().load_wsgi()

    def _start_threads(self) -> None:
        all_run = threading.Barrier(self.cfg.threads)
        try:
            for _ in range(self.cfg.threads):
                self.tpool.submit(all_run.wait)
        except BaseException:  # no more threads are to be had: those that wait for them would never end
            all_run.abort()
            raise

    def run(self) -> None:
        """Answer until the end."""
        os.write(self.tmp.fileno(), b"1")
        super().run()

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Answer one request."""
        with self._counting:
            crowded = self._under_way > 0 and self.cfg.workers > 1
            self._crowded += crowded
            part = crowded and self._crowded % PARTED == 0
            self._under_way += 1
        try:
            if part:
                req.force_close()
            kept = self._answer(req, conn)
        finally:
            with self._counting:
                self._under_way -= 1
        if part and not kept:
            # Gunicorn would do it in its main loop, which takes nothing up until the client has closed too.
            conn.close(graceful=True)
            conn.close = _closed
        return kept

    def _answer(self, req: Any, conn: Any) -> Any:
        plain, body = conn.sock, req.body
        conn.sock = joined = _Joined(plain)
        req.body = _Body(body, req)
        try:
            kept = super().handle_request(req, conn)
        finally:
            conn.sock, req.body = plain, body
        joined.flush()
        return kept


def _closed(graceful: bool = False) -> None:
    """A connection that is closed already."""


class _Body:
    """The body of a request; one that is broken is its client's doing, and ends the connection.

    What comes after it on the connection might be anything.
    """

    def __init__(self, body: Any, req: Any) -> None:
        self._body = body
        self._req = req

    def read(self, size: int | None = None) -> bytes:
        try:
            data: bytes = self._body.read(size)
        except ParseException as error:
            self._req.force_close()
            raise InvalidArgument(f"the body is not chunked as HTTP has it: {error}", field="body") from error
        except OSError as error:  # a reset, or the end in the middle of a chunk
            self._req.force_close()
            raise InvalidArgument("the body is cut off", field="body") from error
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


class _Joined:
    """A socket that holds back what is sent first, the head, until there is more."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._held: bytes | None = None

    def sendall(self, data: bytes) -> None:
        if self._held is None:
            self._held = data
            return
        held, self._held = self._held, b""
        if held and len(data) <= _TOGETHER:
            self._sock.sendall(held + data)
            return
        if held:
            self._sock.sendall(held)
        self._sock.sendall(data)

    def flush(self) -> None:
        if self._held:
            self._sock.sendall(self._held)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
