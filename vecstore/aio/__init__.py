"""The API for asyncio: `connect`, `AsyncDatabase`, `AsyncNamespace` (decision 0034).

Every method is the one of `vecstore.api` of the same name, carried out so that the event loop goes on:
over HTTP by suspending where it waits for the server (`vecstore.aio.suspend`), embedded by a thread.
"""

from vecstore.aio.database import AsyncDatabase, AsyncNamespace, AsyncScan, connect

__all__ = ["AsyncDatabase", "AsyncNamespace", "AsyncScan", "connect"]
