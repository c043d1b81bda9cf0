"""`AsyncDatabase` and `AsyncNamespace`: the methods of `vecstore.api`, awaited.

Signatures and documentation are taken over from there, so there is one of each.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from vecstore import api
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument
from vecstore.limits import MAX_PAGE_SIZE
from vecstore.params import is_integer, plain
from vecstore.scan import Scan
from vecstore.storage.threads import Pool
from vecstore.types import Metric, NamespaceInfo, Row, ScanPage
from vecstore.urls import is_server, path_of

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 16


class Carrier(Protocol):
    """Carries out plain calls while the event loop goes on."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def close(self) -> None: ...


class Threads:
    """By threads: what is cancelled is no longer waited for, but a call that has begun goes on to its end."""

    def __init__(self, threads: int = THREADS) -> None:
        self._pool = Pool(threads, thread_name_prefix="vecstore-async")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.shutdown)


class Suspended:
    """By suspending: a cancelled request is given up, and its connection closed."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        from vecstore.aio.suspend import run

        return await run(function, *args, **kwargs)

    async def close(self) -> None:
        pass


def connect(
    url: str | os.PathLike[str] = "./data", *, threads: int = THREADS, **options: Any
) -> AsyncDatabase:
    """Open a database for asyncio: ``async with vecstore.aio.connect(url) as db``.

    Parameters
    ----------
    url
        As for `vecstore.connect`. Over HTTP, which needs the extra ``async``, requests run in the event loop,
        32 at a time on kept connections; the others wait their turn.
    threads
        That carry out calls of an embedded store, whose kernels run without the interpreter's lock.
    options
        As for `vecstore.connect`.
    """
    threads = plain(threads)
    if not is_integer(threads) or threads < 1:
        raise InvalidArgument("threads must be an integer of at least 1", field="threads", limit=1)
    url = path_of("url", url)
    if not is_server(url):
        return AsyncDatabase(api.connect(url, **options), Threads(threads))
    try:
        from vecstore.aio.transport import Suspending
    except ImportError as error:
        raise InvalidArgument(
            "asyncio over HTTP needs aiohttp and greenlet: pip install 'vecstore[async]'", field="url"
        ) from error
    return AsyncDatabase(api.connect(url, transport=Suspending, **options), Suspended())


def _of_database(
    method: Callable[Concatenate[Database, P], T],
) -> Callable[Concatenate[AsyncDatabase, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: AsyncDatabase, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._carrier.run(method, self._database, *args, **kwargs)

    return call


def _of_namespace(
    method: Callable[Concatenate[Namespace, P], T],
) -> Callable[Concatenate[AsyncNamespace, P], Coroutine[Any, Any, T]]:
    @functools.wraps(method)
    async def call(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._carrier.run(method, self._namespace, *args, **kwargs)

    return call


def _scan_of(
    method: Callable[Concatenate[Namespace, P], Scan],
) -> Callable[Concatenate[AsyncNamespace, P], AsyncScan]:
    """To be read by ``async for`` over it, or over its pages."""

    @functools.wraps(method)
    def call(self: AsyncNamespace, /, *args: P.args, **kwargs: P.kwargs) -> AsyncScan:
        return AsyncScan(method(self._namespace, *args, **kwargs), self._carrier)

    return call


class AsyncDatabase:
    """Many namespaces, for one event loop. An asynchronous context manager."""

    def __init__(self, database: Database, carrier: Carrier) -> None:
        self._database = database
        self._carrier = carrier

    namespaces_page = _of_database(Database.namespaces_page)
    delete_namespace = _of_database(Database.delete_namespace)
    cache_stats = _of_database(Database.cache_stats)

    async def create_namespace(
        self,
        name: str,
        dim: int,
        metric: Metric = "cosine",
        *,
        schema: Mapping[str, Any] | None = None,
        **defaults: Any,
    ) -> AsyncNamespace:
        """As `Database.create_namespace`."""
        created = await self._carrier.run(
            self._database.create_namespace, name, dim, metric, schema=schema, **defaults
        )
        return AsyncNamespace(created, self._carrier)

    async def namespace(self, name: str) -> AsyncNamespace:
        """An existing namespace. `NamespaceNotFound` if there is none."""
        return AsyncNamespace(await self._carrier.run(self._database.namespace, name), self._carrier)

    async def namespaces(self, prefix: str = "") -> AsyncIterator[NamespaceInfo]:
        """All namespaces whose name starts with ``prefix``, by name."""
        after: str | None = None
        while True:
            page = await self.namespaces_page(prefix, after=after, limit=MAX_PAGE_SIZE)
            for info in page:
                yield info
            if len(page) < MAX_PAGE_SIZE:
                return
            after = page[-1].name

    async def close(self) -> None:
        """Let calls in threads end, stop maintenance, release connections. Idempotent."""
        if isinstance(self._carrier, Suspended):
            await self._carrier.run(self._database.close)
        else:
            await self._carrier.close()
            await asyncio.to_thread(self._database.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncNamespace:
    """A set of rows with one dimension and metric.

    Parameters
    ----------
    namespace
        Whose calls are carried out.
    carrier
        How: by threads unless the namespace is one of an `AsyncDatabase` over HTTP.
    """

    def __init__(self, namespace: Namespace, carrier: Carrier) -> None:
        self._namespace = namespace
        self._carrier = carrier

    @property
    def name(self) -> str:
        return self._namespace.name

    def __repr__(self) -> str:
        return f"AsyncNamespace({self.name!r})"

    # mypy: a method that takes any option might be given its own self by name.
    insert = _of_namespace(Namespace.insert)
    delete = _of_namespace(Namespace.delete)
    patch = _of_namespace(Namespace.patch)
    search = _of_namespace(Namespace.search)
    search_batch = _of_namespace(Namespace.search_batch)  # type: ignore[arg-type]
    aggregate = _of_namespace(Namespace.aggregate)
    multi_query = _of_namespace(Namespace.multi_query)
    measure_recall = _of_namespace(Namespace.measure_recall)  # type: ignore[arg-type]
    recall_estimate = _of_namespace(Namespace.recall_estimate)
    get = _of_namespace(Namespace.get)
    stats = _of_namespace(Namespace.stats)
    update = _of_namespace(Namespace.update)  # type: ignore[arg-type]
    manifest = _of_namespace(Namespace.manifest)
    parts = _of_namespace(Namespace.parts)
    restore = _of_namespace(Namespace.restore)
    tags = _of_namespace(Namespace.tags)
    tag = _of_namespace(Namespace.tag)
    untag = _of_namespace(Namespace.untag)
    compact = _of_namespace(Namespace.compact)
    warm = _of_namespace(Namespace.warm)
    gc = _of_namespace(Namespace.gc)

    scan = _scan_of(Namespace.scan)

    async def branch(self, name: str, epoch: int | None = None) -> AsyncNamespace:
        """As `Namespace.branch`."""
        return AsyncNamespace(await self._carrier.run(self._namespace.branch, name, epoch), self._carrier)


@dataclass(frozen=True, slots=True)
class AsyncScan:
    """Rows of one epoch, as `vecstore.scan.Scan`."""

    scan: Scan
    carrier: Carrier

    async def __aiter__(self) -> AsyncIterator[Row]:
        async for page in self.pages():
            for row in page:
                yield row

    async def pages(self) -> AsyncIterator[ScanPage]:
        """The pages; one may be empty. Each names the ``cursor`` of the next."""
        asked = self.scan.params
        while True:
            page = await self.carrier.run(self.scan.read, asked)
            yield page
            if page.cursor is None:
                return
            asked = replace(asked, cursor=page.cursor)

    async def to_arrow(self) -> Any:
        """All rows as one ``pyarrow.Table``. Extra ``arrow``."""
        return await self.carrier.run(self.scan.to_arrow)

    async def to_pandas(self) -> Any:
        """All rows as one ``pandas.DataFrame``. Extra ``pandas``."""
        return await self.carrier.run(self.scan.to_pandas)
