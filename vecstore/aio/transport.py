"""Requests over aiohttp, for a client that `vecstore.aio.suspend` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from vecstore.aio.suspend import wait_for
from vecstore.errors import InvalidArgument
from vecstore.transport import CONNECTIONS, NeverSent, NoAnswer, connect_timeout, words

# What urllib3 sends and does as well: no cookies, nothing compressed.
_HEADERS = {"Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    data: bytes


class Suspending:
    """At most `CONNECTIONS` requests at a time, kept connections; belongs to the loop that first used it."""

    def __init__(self, timeout: float) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout(timeout), sock_read=timeout
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: aiohttp.ClientSession | None = None

    def request(self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]) -> _Answer:
        try:
            return wait_for(self._request(method, url, body, headers))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NeverSent(words(error)) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(words(error)) from error

    def sleep(self, seconds: float) -> None:
        wait_for(asyncio.sleep(seconds))

    def close(self) -> None:
        session, self._session = self._session, None  # requests after that connect anew, as `Pooled`'s do
        if session is not None:
            wait_for(session.close())

    async def _request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> _Answer:
        async with self._connections().request(
            method,
            URL(url, encoded=True),  # an id may hold an escaped slash
            data=body,
            headers=headers,
            allow_redirects=False,
        ) as answer:
            return _Answer(answer.status, answer.headers, await answer.read())

    def _connections(self) -> aiohttp.ClientSession:
        running = asyncio.get_running_loop()
        if self._session is None:
            self._loop = running
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                headers=_HEADERS,
            )
            # It would send a DELETE again after a connection was lost; only the client may decide that.
            self._session._retry_connection = False
        elif self._loop is not running:
            raise InvalidArgument(
                "an AsyncDatabase belongs to the event loop that used it first; open one for each",
                field="loop",
            )
        return self._session
