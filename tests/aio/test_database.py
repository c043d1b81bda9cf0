"""The API for asyncio: the same answers, many at once, and what becomes of a call that is given up."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecstore
import vecstore.aio
from tests.server.support import Server
from vecstore.aio import AsyncDatabase, AsyncNamespace
from vecstore.api import Database, Namespace
from vecstore.errors import (
    DatabaseClosed,
    InvalidArgument,
    NamespaceNotFound,
    OutcomeUnknown,
    PreconditionFailed,
    RowNotFound,
    ServerUnavailable,
)

DIM = 8
ROWS = np.random.default_rng(5).standard_normal((50, DIM)).astype(np.float32)
DEADLINE = 30.0
DELETED = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.fixture(params=["embedded", "http"])
async def db(request: pytest.FixtureRequest) -> AsyncIterator[AsyncDatabase]:
    """An empty database: in this process, and of a real server."""
    if request.param == "embedded":
        async with vecstore.aio.connect("memory://", maintenance="off") as database:
            yield database
        return
    async with vecstore.aio.connect(request.getfixturevalue("server").url) as database:
        yield database
        async for info in database.namespaces():
            await database.delete_namespace(info.name)


@asynccontextmanager
async def answering(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any],
) -> AsyncIterator[str]:
    """The URL of something that is no server of ours."""
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield "http://{}:{}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(("plain", "awaited"), [(Namespace, AsyncNamespace), (Database, AsyncDatabase)])
def test_all_methods_have_a_twin_of_the_same_signature(plain: type, awaited: type) -> None:
    public = {name for name in vars(plain) if not name.startswith("_")} - {"backend"}
    assert public - set(dir(awaited)) == set()
    for name in public - {"scan"}:
        one, other = inspect.signature(getattr(plain, name)), inspect.signature(getattr(awaited, name))
        assert list(one.parameters.values()) == list(other.parameters.values()), name


async def test_rows_are_found_read_changed_and_deleted(db: AsyncDatabase) -> None:
    ns = await db.create_namespace("docs", DIM, "l2", schema={"n": "int"})
    assert ns.name == "docs"
    done = await ns.insert(ROWS, ids=np.arange(50), attributes={"n": np.arange(50)})
    hits = await ns.search(ROWS[7], top_k=3, include=["n"])
    assert (hits.ids[0], hits[0].attributes, hits.epoch) == (7, {"n": 7}, done.epoch)
    assert (await ns.search_batch(ROWS[:4], top_k=1)).ids[:, 0].tolist() == [0, 1, 2, 3]
    await ns.patch([7], {"n": [70]})
    row = await ns.get(7)
    assert row.attributes == {"n": 70}
    np.testing.assert_array_equal(row.vector, ROWS[7])
    answers = await ns.multi_query([{"vector": ROWS[3]}, {"aggregate_by": {"sum": ["Sum", "n"]}}])
    assert answers[0].ids[0] == 3
    assert answers[1].values == {"sum": sum(range(50)) + 63}
    assert (await ns.delete([7, 999])).deleted == 1
    with pytest.raises(RowNotFound):
        await ns.get(7)
    with pytest.raises(PreconditionFailed):
        await ns.delete([8], if_match=(done.incarnation, done.epoch))


@pytest.mark.parametrize("identity", [".", "..", "a/..", "a/./b", "\n", "\r\n", "a\n"])
async def test_any_string_is_an_id_in_a_path(db: AsyncDatabase, identity: str) -> None:
    ns = await db.create_namespace("docs", DIM)
    await ns.insert(ROWS[:1], ids=[identity])
    assert (await ns.get(identity)).id == identity


async def test_namespaces_are_listed_branched_and_gone(db: AsyncDatabase) -> None:
    ns = await db.create_namespace("a", DIM)
    await ns.insert(ROWS[:5], ids=np.arange(5))
    branch = await ns.branch("b")
    assert (await branch.stats()).rows == 5
    assert [info.name async for info in db.namespaces()] == ["a", "b"]
    await db.delete_namespace("a")
    with pytest.raises(NamespaceNotFound):
        await db.namespace("a")
    assert (await (await db.namespace("b")).get(3)).id == 3


async def test_a_scan_reads_all_rows_of_one_epoch_page_by_page(db: AsyncDatabase) -> None:
    ns = await db.create_namespace("docs", DIM)
    await ns.insert(ROWS, ids=np.arange(50))
    seen: list[int] = []
    async for page in ns.scan(limit=20).pages():
        seen += [row.id for row in page]
        await ns.delete([49])  # which the epoch of the first page still has
    assert seen == list(range(50))
    assert [row.id async for row in ns.scan()] == list(range(49))
    assert (await ns.scan().to_arrow()).column("id").to_pylist() == list(range(49))
    assert len(await ns.scan(filter=["id", "Lt", 5]).to_pandas()) == 5


async def test_many_calls_at_once_get_their_own_answers(db: AsyncDatabase) -> None:
    ns = await db.create_namespace("docs", DIM)
    await ns.insert(ROWS, ids=np.arange(50))
    found = await asyncio.gather(*(ns.search(ROWS[i % 50], top_k=1) for i in range(200)))
    assert [int(hits.ids[0]) for hits in found] == [i % 50 for i in range(200)]


async def test_the_limits_of_a_call_are_those_of_the_plain_api(db: AsyncDatabase) -> None:
    ns = await db.create_namespace("docs", DIM)
    with pytest.raises(InvalidArgument, match="top_k"):
        await ns.search(ROWS[0], top_k=0)


async def test_a_progress_callback_sees_the_context_of_the_task(db: AsyncDatabase) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    ns = await db.create_namespace("docs", DIM)
    name.set("mine")
    seen: list[str] = []
    await ns.insert(ROWS, progress=lambda share: seen.append(name.get()))
    assert set(seen) == {"mine"}


async def test_a_cancelled_request_closes_its_connection_and_others_go_on() -> None:
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"DELETE"):
            writer.write(DELETED)
        else:
            arrived.set()
            await reader.read()  # never answered: this returns once the other side has gone
            closed.set()
        writer.close()

    async with answering(handle) as url, vecstore.aio.connect(url) as db:
        waiting = asyncio.create_task(db.namespace("never"))
        await asyncio.wait_for(arrived.wait(), DEADLINE)
        await asyncio.wait_for(db.delete_namespace("other"), DEADLINE)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.wait_for(closed.wait(), DEADLINE)
        await asyncio.wait_for(db.delete_namespace("other"), DEADLINE)


async def test_a_time_limit_of_asyncio_ends_a_request_and_its_repetitions() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with answering(handle) as url, vecstore.aio.connect(url) as db:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await db.namespace("never")


async def test_a_silent_server_is_unavailable_to_reads_and_leaves_a_write_unknown() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with answering(handle) as url, vecstore.aio.connect(url, timeout=0.1, attempts=1) as db:
        with pytest.raises(ServerUnavailable, match="did not answer"):
            await db.namespace("never")
        with pytest.raises(OutcomeUnknown, match="did not say"):
            await db.delete_namespace("never")


async def test_reads_are_repeated_and_a_lost_write_is_not() -> None:
    asked: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ", 1)[0].decode())
        writer.close()

    async with answering(handle) as url, vecstore.aio.connect(url, attempts=3) as db:
        with pytest.raises(ServerUnavailable):
            await db.namespace("docs")
        assert asked == ["GET"] * 3
        with pytest.raises(OutcomeUnknown):
            await db.delete_namespace("docs")
    assert asked == ["GET"] * 3 + ["DELETE"]


async def test_a_server_that_is_not_there_was_not_reached(unused_tcp_port: int) -> None:
    async with vecstore.aio.connect(f"http://127.0.0.1:{unused_tcp_port}", attempts=2) as db:
        with pytest.raises(ServerUnavailable, match="cannot be reached"):
            await db.delete_namespace("docs")


def test_a_database_over_http_belongs_to_one_loop(server: Server) -> None:
    db = vecstore.aio.connect(server.url)

    async def listed() -> list[str]:
        return [info.name async for info in db.namespaces()]

    with asyncio.Runner() as first, asyncio.Runner() as second:
        assert first.run(listed()) == []
        with pytest.raises(InvalidArgument, match="event loop"):
            second.run(listed())
        first.run(db.close())


async def test_a_closed_handle_over_http_connects_anew_as_the_plain_one_does(server: Server) -> None:
    plain = vecstore.connect(server.url)
    awaited = vecstore.aio.connect(server.url)
    for _ in range(2):
        assert list(plain.namespaces()) == [info async for info in awaited.namespaces()] == []
        plain.close()
        await awaited.close()
        await awaited.close()


async def test_an_embedded_call_that_is_given_up_leaves_the_loop_free_and_goes_on() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def progress(share: float) -> None:
        begun.set()
        if not go_on.wait(DEADLINE):
            raise AssertionError("nobody let it go on")
        ended.set()

    async with vecstore.aio.connect("memory://", maintenance="off") as db:
        ns = await db.create_namespace("docs", DIM)
        inserting = asyncio.create_task(ns.insert(ROWS, ids=np.arange(50), progress=progress))
        assert await asyncio.to_thread(begun.wait, DEADLINE)
        assert (await ns.stats()).dim == DIM
        inserting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await inserting
        assert not ended.is_set()
        go_on.set()
    assert ended.is_set()  # close waits for what has begun


async def test_a_database_that_was_closed_says_so() -> None:
    db = vecstore.aio.connect("memory://")
    ns = await db.create_namespace("docs", 3)
    await db.close()
    with pytest.raises(DatabaseClosed):
        await ns.insert(np.eye(3))
    with pytest.raises(DatabaseClosed):
        await db.namespace("docs")


async def test_a_store_may_be_named_by_a_path(tmp_path: Path) -> None:
    async with vecstore.aio.connect(tmp_path / "data") as db:
        await db.create_namespace("docs", 3)
    assert (tmp_path / "data").is_dir()
    with pytest.raises(InvalidArgument, match="url"):
        vecstore.aio.connect(5)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, True, 1.5])
def test_the_number_of_threads_is_checked(threads: Any) -> None:
    with pytest.raises(InvalidArgument, match="threads"):
        vecstore.aio.connect("memory://", threads=threads)


def test_without_the_extra_http_is_refused_with_what_to_install() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "import vecstore.aio\n"
        "vecstore.aio.connect('memory://', maintenance='off')\n"
        "try: vecstore.aio.connect('http://127.0.0.1:1')\n"
        "except vecstore.VecstoreError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'vecstore[async]'" in done.stdout, done.stderr
