"""What is said of a request that had no answer: one line, of either transport, and no object in it."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import vecstore
import vecstore.aio
from vecstore.errors import ServerUnavailable, VecstoreError

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """A server that says ``data`` to whoever connects, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(data)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def told(url: str, way: str) -> str:
    """The error of a request that may be repeated."""

    async def suspended() -> None:
        async with vecstore.aio.connect(url, timeout=5.0) as db:
            await db.namespace("docs")

    def asked() -> None:
        if way == "aio":
            asyncio.run(suspended())
        else:
            vecstore.connect(url, timeout=5.0).namespace("docs")

    with pytest.raises(VecstoreError) as error:
        asked()
    return str(error.value)


@pytest.mark.parametrize("way", ["urllib3", "aio"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense\r\n\r\n",
        HEAD + b"Content-Length: 100\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "no HTTP", "cut off", "no chunk"],
)
def test_an_answer_that_breaks_off_is_told_on_one_line(data: bytes, way: str) -> None:
    with answering(data) as url:
        said = told(url, way)
    assert "\n" not in said
    assert "<" not in said
    assert "object at" not in said
    assert said.count("(") == said.count(")")
    assert said.count("'") % 2 == 0


@pytest.mark.parametrize("way", ["urllib3", "aio"])
def test_a_server_that_is_not_there_is_told_with_the_reason(way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    said = told(url, way)
    assert "refused" in said.lower() or "connect call failed" in said.lower()
    assert "object at" not in said


def test_a_server_that_is_not_there_is_an_error_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServerUnavailable), vecstore.connect(url, timeout=5.0) as db:
        db.namespace("docs")


@pytest.mark.parametrize("way", ["urllib3", "aio"])
@pytest.mark.parametrize("data", [b"", HEAD + b"Content-Length: 0\r\n\r\n"], ids=["nothing", "no TLS"])
def test_a_write_whose_connection_is_not_secured_was_never_sent(data: bytes, way: str) -> None:
    def write(url: str) -> object:
        return vecstore.connect(url, timeout=5.0, attempts=1).create_namespace("docs", 2)

    async def suspended(url: str) -> None:
        async with vecstore.aio.connect(url, timeout=5.0, attempts=1) as db:
            await db.create_namespace("docs", 2)

    with answering(data) as plain:
        url = plain.replace("http://", "https://")
        with pytest.raises(ServerUnavailable) as error:
            asyncio.run(suspended(url)) if way == "aio" else write(url)
    assert "host=" not in str(error.value)
