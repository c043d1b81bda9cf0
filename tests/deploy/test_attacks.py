"""What strangers send: slow, huge, ambiguous, explosive, or nothing. While it lasts, others are answered."""

from __future__ import annotations

import json
import re
import resource
import socket
import ssl
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.deploy.site import JSON, MAX_BODY, PARTS, QUERY, SEARCH, Site, answer_of, site_of
from tests.deploy.support import Nginx
from tests.server.support import eventually

MANY = 80  # slow clients: more than the threads of all workers, fewer than nginx takes of one address
IDLE = 10_000
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")

HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % SEARCH.encode()
BODY = QUERY.encode()
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HIDDEN = b"DELETE /v1/namespaces/docs HTTP/1.1\r\nHost: x\r\n\r\n"


def in_chunks(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)


# -- slow ------------------------------------------------------------------------------------


@contextmanager
def slow_clients(proxy: Nginx, begun: bytes, more: bytes) -> Iterator[Callable[[], int]]:
    """Many that have sent a part of a request; a call sends more on all, and tells how many are open."""
    with ExitStack() as stack:
        clients = [stack.enter_context(proxy.connect()) for _ in range(MANY)]
        for client in clients:
            client.sendall(begun)
            client.settimeout(0)

        def drip() -> int:
            for client in list(clients):
                try:
                    client.send(more)
                    closed = client.recv(1) == b""
                except (ssl.SSLWantReadError, BlockingIOError):
                    continue
                except OSError:
                    closed = True
                if closed:
                    clients.remove(client)
            return len(clients)

        yield drip


def test_clients_that_send_their_headers_slowly_are_cut_off_and_others_answered(site: Site) -> None:
    with slow_clients(site.nginx, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"a") as drip:
        assert drip() > 0
        site.check_healthy()
        eventually("all are cut off, though each sends", lambda: drip() == 0)
        site.check_healthy()


def test_clients_that_send_their_bodies_slowly_hold_no_thread_and_others_are_answered(site: Site) -> None:
    begun = HEAD + b"Content-Length: 1000\r\n\r\n"
    with slow_clients(site.nginx, begun, b" ") as drip:
        assert drip() > 0
        site.check_healthy()


def test_a_body_that_stops_is_given_up(site: Site) -> None:
    with site.nginx.connect() as client:
        client.sendall(HEAD + b"Content-Length: 1000\r\n\r\n{")
        assert client.recv(1) == b""
    site.check_healthy()


def test_a_client_that_reads_nothing_holds_no_place(site: Site) -> None:
    everything = json.dumps({"vectors": [[1, 1]] * 1_000, "top_k": 1_000}).encode()
    with ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(site.nginx.connect())
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(everything) + everything)
        site.check_healthy()


# -- large -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        b"X-One: " + b"a" * 100_000 + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (i, b"a" * 1_000) for i in range(100)),
        b"".join(b"X-%d: a\r\n" % i for i in range(1_000)),
        b"Cookie: " + b"a=b;" * 10_000 + b"\r\n",
    ],
    ids=["one line", "many lines", "many fields", "cookies"],
)
def test_huge_headers_are_refused(site: Site, headers: bytes) -> None:
    assert statuses(site.nginx, HEAD + headers + LENGTH + b"\r\n" + BODY) == [400]
    site.check_healthy()


def test_a_gzip_bomb_is_refused(site: Site) -> None:
    deflate = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    bomb = b"".join(deflate.compress(zeros) for _ in range(200)) + deflate.flush()
    assert len(bomb) < MAX_BODY // 50
    headers = {**JSON, "Content-Encoding": "gzip"}
    for path in (SEARCH, PARTS):
        answer = site.ask("POST", path, bomb, headers)
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")
        assert answer.json["details"]["limit"] == MAX_BODY
    site.check_healthy()


@pytest.mark.parametrize(
    "body",
    [
        '{"vector": ' + "[" * 1_000_000,
        '{"vector": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"vector": [3, 0], "filter": ' + '["Not", ' * 50_000 + "1" + "]" * 50_000 + "}",
        '{"a": ' * 200_000 + "1" + "}" * 200_000,
        '{"vector": [' + "1" * 1_000_000 + ", 0]}",
        '{"vector": [1e999999999, 0]}',
        '{"top_k": ' + "9" * 100_000 + ', "vector": [3, 0]}',
        "[" + "{}," * 500_000 + "{}]",
    ],
    ids=["open", "nested", "filter", "objects", "long number", "exponent", "integer", "many"],
)
def test_explosive_json_is_refused(site: Site, body: str) -> None:
    answer = site.ask("POST", SEARCH, body)
    assert answer.status == 400, answer
    site.check_healthy(1)


# -- ambiguous -------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_their_order(site: Site) -> None:
    asked = [(i * 7) % 10 for i in range(60)]
    bodies = [json.dumps({"vector": [i, 0], "top_k": 1}).encode() for i in asked]
    requests = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    requests.append(HEAD + LENGTH + b"Connection: close\r\n\r\n" + BODY)
    with site.nginx.connect() as client:
        client.sendall(b"".join(requests))
        received = everything(client)
    found = [int(one) for one in re.findall(rb'"id":([0-9]+)', received)]
    assert found == [*asked, 3]
    site.check_healthy(1)


REFUSED = {
    "length and chunked": b"Content-Length: 999\r\n" + CHUNKED + b"\r\n" + in_chunks(BODY),
    "chunked and length": CHUNKED + b"Content-Length: 4\r\n\r\n" + in_chunks(BODY),
    "two lengths": LENGTH + b"Content-Length: 99\r\n\r\n" + BODY,
    "one length twice": LENGTH + LENGTH + b"\r\n" + BODY,
    "a list of lengths": b"Content-Length: 31, 99\r\n\r\n" + BODY,
    "a length with a sign": b"Content-Length: +31\r\n\r\n" + BODY,
    "a negative length": b"Content-Length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": b"Content-Length: 0x1f\r\n\r\n" + BODY,
    "a length in two": b"Content-Length: 3 1\r\n\r\n" + BODY,
    "a huge length": b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "another encoding": LENGTH + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
    "two encodings": b"Transfer-Encoding: chunked, identity\r\n\r\n" + in_chunks(BODY),
    "two lines of encodings": CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + in_chunks(BODY),
    "a vertical tab": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + in_chunks(BODY),
    "a space before the colon": LENGTH + b"Transfer-Encoding : chunked\r\n\r\n" + BODY,
    "a tab before the colon": LENGTH + b"Transfer-Encoding\t: chunked\r\n\r\n" + BODY,
    "a folded line": LENGTH + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + BODY,
    "a line that begins with a space": LENGTH + b" Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a bare LF": LENGTH + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "a bare CR": LENGTH + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "a NUL": LENGTH + b"X: a\0b\r\n\r\n" + BODY,
    "two hosts": LENGTH + b"Host: y\r\n\r\n" + BODY,
    "a hexadecimal chunk": CHUNKED + b"\r\n0x1f\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"\r\n-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a huge chunk": CHUNKED + b"\r\nfffffffffffffffffff\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"\r\n1\r\n" + BODY + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("form", REFUSED)
def test_a_request_whose_end_is_ambiguous_is_refused_and_nothing_behind_it_is_read(
    site: Site, form: str
) -> None:
    (status,) = statuses(site.nginx, HEAD + REFUSED[form] + HIDDEN)
    assert status in (400, 501)
    check_not_deleted(site)


OLD = HEAD.replace(b"HTTP/1.1", b"HTTP/1.0")
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
AS_CHUNKS = in_chunks(HIDDEN)
BEHIND_AN_END = b"0\r\n\r\n" + HIDDEN


def sized(data: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(data)


WHOLE = {  # what looks like a request lies in the body of another
    "a body of GET": GET + sized(HIDDEN) + b"\r\n" + HIDDEN,
    "chunks of GET": GET + CHUNKED + b"\r\n" + AS_CHUNKS,
    "an underscore": HEAD + sized(BEHIND_AN_END) + b"Transfer_Encoding: chunked\r\n\r\n" + BEHIND_AN_END,
    "an extension of a chunk": HEAD + CHUNKED + b"\r\n%x;a\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN),
    "a trailer": HEAD + CHUNKED + b"\r\n" + AS_CHUNKS[:-2] + b"Content-Length: 0\r\n\r\n",
    "a length to be dropped": HEAD + b"Connection: Content-Length\r\n" + sized(HIDDEN) + b"\r\n" + HIDDEN,
    "chunks of HTTP/1.0": OLD + CHUNKED + b"\r\n" + AS_CHUNKS,
    "HTTP/0.9": b"GET /healthz\r\n" + HIDDEN,
    "another version": b"GET /healthz HTTP/1.1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a tunnel": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("form", WHOLE)
def test_what_is_hidden_in_a_body_is_not_carried_out(site: Site, form: str) -> None:
    assert len(statuses(site.nginx, WHOLE[form])) <= 1
    check_not_deleted(site)


def check_not_deleted(site: Site) -> None:
    """Also by what might lie on the kept connections to the server."""
    connection = site.connection()
    for _ in range(4):
        connection.request("POST", SEARCH, QUERY, JSON)
        answer = answer_of(connection)
        assert (answer.status, answer.json["hits"][0]["id"]) == (200, 3)
    connection.close()


def statuses(proxy: Nginx, request: bytes) -> list[int]:
    """Of the answers to what is sent as it stands, until nothing more can come."""
    with proxy.connect() as client:
        client.sendall(request)
        received = b""
        try:
            while data := client.recv(65_536):
                received += data
                client.settimeout(0.3)  # one answer is there; another would follow at once
        except OSError:
            assert received, "no answer and no end"
    return [int(status) for status in STATUS.findall(received)]


def everything(client: socket.socket) -> bytes:
    received = b""
    while data := client.recv(65_536):
        received += data
    return received


# -- many ------------------------------------------------------------------------------------


@pytest.fixture
def descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 2_000:
        pytest.skip(f"at most {hard} descriptors may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("descriptors")
def test_ten_thousand_idle_connections_leave_others_unaffected(tmp_path: Path) -> None:
    with site_of(tmp_path, {"client_header_timeout 10s": "client_header_timeout 60s"}, workers=1) as site:
        address = site.nginx.host, site.nginx.port
        with ExitStack() as stack:
            idle = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(IDLE)]
            site.check_healthy(20)
            for client in idle:
                client.setblocking(False)
                with pytest.raises(BlockingIOError):  # it is open, and there is nothing to read
                    client.recv(1)
        site.check_healthy()
