"""A proxy before an S3 server that spoils requests by script: real sockets, real clients."""

from __future__ import annotations

import http.client
import http.server
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import urlsplit


class Toxic(Enum):
    """What happens to one request."""

    PASS = "nothing"
    DROP = "the connection closes before the server hears of it"
    BEHEAD = "the server hears the headers and none of the body, then the connection closes"
    LOSE = "the server carries it out, then the connection closes"
    HANG = "the server carries it out, and no answer comes"
    REFUSE_503 = "answered 503 SlowDown, not carried out"
    LATE_500 = "carried out, answered 500"
    CONFLICT_409 = "answered 409 ConditionalRequestConflict, not carried out"
    FORBID = "answered 403 AccessDenied, not carried out"
    BAD_REQUEST = "answered 400, not carried out"
    CUT = "the answer's body ends halfway"
    FLIP = "one bit of the answer's body is another"
    NO_METADATA = "the answer lacks the object's metadata"
    WHOLE = "the server ignores the range"


@dataclass
class Proxy:
    """A running proxy.

    Attributes
    ----------
    requests
        Methods and paths so far.
    """

    url: str
    requests: list[str] = field(default_factory=list)
    _script: list[tuple[str, Toxic]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)

    def plan(self, *toxics: tuple[str, Toxic]) -> None:
        """Spoil the next requests: each entry takes the first one to come with its method."""
        with self._lock:
            self._script = list(toxics)
            self.requests.clear()

    def take(self, method: str, path: str) -> Toxic:
        with self._lock:
            self.requests.append(f"{method} {path}")
            for position, (wanted, toxic) in enumerate(self._script):
                if wanted == method:
                    del self._script[position]
                    return toxic
        return Toxic.PASS

    def count(self, method: str) -> int:
        with self._lock:
            return sum(1 for request in self.requests if request.startswith(f"{method} "))


_ANSWERS = {
    Toxic.REFUSE_503: (503, "SlowDown"),
    Toxic.LATE_500: (500, "InternalError"),
    Toxic.CONFLICT_409: (409, "ConditionalRequestConflict"),
    Toxic.FORBID: (403, "AccessDenied"),
    Toxic.BAD_REQUEST: (400, "AuthorizationHeaderMalformed"),
}


@contextmanager
def toxic_proxy(upstream: str, *, port: int = 0) -> Iterator[Proxy]:
    """A proxy before ``upstream``; on a free port, unless one is given."""
    target = urlsplit(upstream).netloc

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            toxic = proxy.take(self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if toxic is Toxic.DROP:
                return self._close()
            if toxic is Toxic.BEHEAD:
                self._send_headers()
                return self._close()
            if toxic in _ANSWERS and toxic is not Toxic.LATE_500:
                return self._fail(*_ANSWERS[toxic])
            status, headers, data = self._forward(body, toxic)
            if toxic is Toxic.LATE_500:
                return self._fail(*_ANSWERS[toxic])
            if toxic is Toxic.HANG:
                proxy.released.wait(30)
            if toxic in (Toxic.LOSE, Toxic.HANG):
                return self._close()
            self.send_response_only(status)
            for name, value in headers:
                if toxic is not Toxic.NO_METADATA or not name.lower().startswith("x-amz-meta"):
                    self.send_header(name, value)
            self.end_headers()
            if toxic is Toxic.FLIP:
                middle = len(data) // 2
                data = data[:middle] + bytes(b ^ 1 for b in data[middle : middle + 1]) + data[middle + 1 :]
            self.wfile.write(data[: len(data) // 2] if toxic is Toxic.CUT else data)
            if toxic is Toxic.CUT:
                self._close()
            return None

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

        def _forward(self, body: bytes, toxic: Toxic) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(target, timeout=30)
            dropped = {"expect", "range"} if toxic is Toxic.WHOLE else {"expect"}
            headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            found = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("connection", "server")]
            connection.close()
            return answer.status, found, data

        def _send_headers(self) -> None:
            connection = http.client.HTTPConnection(target, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders()
            connection.sock.shutdown(socket.SHUT_WR)
            while connection.sock.recv(4096):  # until the server is done with it
                pass
            connection.close()

        def _fail(self, status: int, code: str) -> None:
            text = f"<Error><Code>{code}</Code><Message>planned</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text if self.command != "HEAD" else b"")

        def _close(self) -> None:
            self.close_connection = True

        def log_message(self, *args: Any) -> None:
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        server.shutdown()
        server.server_close()
