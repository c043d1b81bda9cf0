"""LangChain's own suite for vector stores, as it is, over every way to reach a namespace."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

pytest.importorskip("langchain_tests", reason="the suite is in langchain-tests")

from langchain_tests.integration_tests import VectorStoreIntegrationTests

import vecstore
import vecstore.aio
from tests.server.support import Server
from vecstore.integrations.langchain import VecstoreVectorStore


class TestEmbedded(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VecstoreVectorStore]:
        with vecstore.connect("memory://", maintenance="off") as database:
            yield VecstoreVectorStore.open(database, "docs", self.get_embeddings())


class TestOverHttp(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, server: Server) -> Iterator[VecstoreVectorStore]:
        with vecstore.connect(server.url) as database:
            yield VecstoreVectorStore.open(database, f"docs-{uuid.uuid4()}", self.get_embeddings())


class TestOverHttpInTheLoop(VectorStoreIntegrationTests):
    @pytest.fixture
    async def vectorstore(self, server: Server) -> AsyncIterator[VecstoreVectorStore]:
        name = f"docs-{uuid.uuid4()}"
        with vecstore.connect(server.url) as database:
            plain = database.create_namespace(name, 6)
            async with vecstore.aio.connect(server.url) as awaited:
                yield VecstoreVectorStore(
                    plain, self.get_embeddings(), async_namespace=await awaited.namespace(name)
                )
