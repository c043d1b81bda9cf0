"""What the vector store for LangChain does beyond LangChain's own suite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from vecstore.api import Database
from vecstore.errors import FilterMismatch, InvalidArgument
from vecstore.integrations import langchain
from vecstore.integrations.langchain import VecstoreVectorStore

ANGLES = {"east": 0.0, "north-east": 0.7, "north": 1.5, "west": 3.1}


class Compass(Embeddings):
    """Words as directions."""

    def embed_query(self, text: str) -> list[float]:
        angle = ANGLES.get(text, 0.1)
        return [float(np.cos(angle)), float(np.sin(angle))]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


@pytest.fixture
def store(db: Database) -> VecstoreVectorStore:
    store = VecstoreVectorStore.open(db, "docs", Compass())
    store.add_texts(
        list(ANGLES),
        [{"n": n, "tags": ["a", "b"][: n % 3], "nested": {"n": n}} for n in range(4)],
        ids=["0", "1", "2", "3"],
    )
    return store


def test_scores_are_distances_and_relevance_falls_with_them(store: VecstoreVectorStore) -> None:
    found = store.similarity_search_with_score("east", k=3)
    assert [document.page_content for document, _ in found] == ["east", "north-east", "north"]
    assert [score for _, score in found] == sorted(score for _, score in found)
    np.testing.assert_allclose(found[1][1], 1 - np.cos(0.7), atol=0.02)
    relevant = store.similarity_search_with_relevance_scores("east", k=3)
    np.testing.assert_allclose([score for _, score in relevant], [1, np.cos(0.7), np.cos(1.5)], atol=0.02)


@pytest.mark.parametrize(("metric", "opposite"), [("cosine", -1.0), ("dot", -1.0), ("l2", 1 - 2**0.5)])
def test_relevance_follows_the_metric(db: Database, metric: Any, opposite: float) -> None:
    store = VecstoreVectorStore.open(db, f"of-{metric}", Compass(), metric=metric)
    store.add_texts(["east", "west"])
    with pytest.warns(UserWarning, match="between 0 and 1"):
        found = store.similarity_search_with_relevance_scores("east", k=2)
    np.testing.assert_allclose([score for _, score in found], [1, opposite], atol=0.03)


async def test_filters_are_those_of_vecstore_or_equalities(store: VecstoreVectorStore) -> None:
    def ids(documents: list[Document]) -> list[str | None]:
        return [document.id for document in documents]

    cases: list[tuple[Any, list[str]]] = [
        (["n", "Gte", 2], ["2", "3"]),
        ({"n": 3}, ["3"]),
        ({"n": [3, 0]}, ["0", "3"]),
        ({"n": (1, 2), "tags": "a"}, []),
        (["And", [["n", "In", [1, 2]], ["tags", "Contains", "b"]]], ["2"]),
        ({}, ["0", "1", "2", "3"]),
    ]
    for filter, expected in cases:
        if filter == {"n": (1, 2), "tags": "a"}:
            with pytest.raises(FilterMismatch):
                store.similarity_search("east", k=4, filter=filter)
            continue
        assert ids(store.similarity_search("east", k=4, filter=filter)) == expected
        assert ids(await store.asimilarity_search("east", k=4, filter=filter)) == expected
    with pytest.raises(InvalidArgument, match="function"):
        store.similarity_search("east", filter=lambda document: True)  # type: ignore[arg-type]


async def test_marginal_relevance_prefers_what_is_not_there_yet(store: VecstoreVectorStore) -> None:
    store.add_texts(["east again"], ids=["again"])  # 0.1 from the query, as good as the same
    plain = [document.id for document in store.similarity_search("east", k=2)]
    assert plain == ["0", "again"]
    diverse = store.max_marginal_relevance_search("east", k=2, fetch_k=4, lambda_mult=0.3)
    assert [document.id for document in diverse] == ["0", "2"]
    assert diverse == await store.amax_marginal_relevance_search("east", k=2, fetch_k=4, lambda_mult=0.3)
    assert store.max_marginal_relevance_search("east", filter={"n": 77}) == []


async def test_options_of_a_search_are_passed_on(store: VecstoreVectorStore) -> None:
    assert len(store.similarity_search("east", k=4, max_distance=0.5)) == 2
    assert len(await store.asimilarity_search_by_vector([1.0, 0.0], k=4, max_distance=0.5)) == 2
    assert len(store.similarity_search_by_vector([1.0, 0.0], k=3, target_recall=0.99)) == 3
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"n": 2}})
    assert [document.id for document in retriever.invoke("east")] == ["2"]
    assert [document.id for document in await retriever.ainvoke("east")] == ["2"]


async def test_deletes_take_ids_a_filter_or_nothing_for_all(store: VecstoreVectorStore) -> None:
    store.delete(["0", "0", "none", "longer than an id may be, which is 64 bytes" * 2])
    await store.adelete(["longer than an id may be, which is 64 bytes" * 2])
    assert {document.id for document in store.similarity_search("east", k=9)} == {"1", "2", "3"}
    await store.adelete(filter={"n": 1})
    store.delete([])
    assert {document.id for document in store.similarity_search("east", k=9)} == {"2", "3"}
    with pytest.raises(InvalidArgument, match="not both"):
        store.delete(["2"], filter={"n": 2})
    with pytest.raises(InvalidArgument, match="names an attribute"):
        store.delete(filter={})
    store.delete()
    assert store.similarity_search("east", k=9) == []


async def test_documents_come_by_id_in_their_order_with_their_metadata(store: VecstoreVectorStore) -> None:
    expected = [
        Document(id="2", page_content="north", metadata={"n": 2, "tags": ["a", "b"], "nested": {"n": 2}}),
        Document(id="0", page_content="east", metadata={"n": 0, "tags": [], "nested": {"n": 0}}),
    ]
    ids = ["2", "none", "longer than an id may be, which is 64 bytes" * 2, "0"]
    assert store.get_by_ids(ids) == expected
    assert await store.aget_by_ids(ids) == expected


def test_of_documents_with_one_id_the_last_stays(store: VecstoreVectorStore) -> None:
    assert store.add_texts(["north", "west"], ids=["x", "x"]) == ["x", "x"]
    assert [document.page_content for document in store.get_by_ids(["x"])] == ["west"]


def test_ids_that_are_not_given_are_made(store: VecstoreVectorStore) -> None:
    made = store.add_documents([Document(page_content="west"), Document(id="y", page_content="west")])
    assert made[1] == "y"
    assert len(store.get_by_ids(made)) == 2


def test_counts_that_differ_are_refused(store: VecstoreVectorStore) -> None:
    with pytest.raises(InvalidArgument, match="ids has 1 entries for 2 texts"):
        store.add_texts(["a", "b"], ids=["1"])
    with pytest.raises(InvalidArgument, match="metadatas has 1"):
        store.add_texts(["a", "b"], [{}])


async def test_a_store_is_made_of_texts_and_opened_again(db: Database) -> None:
    made = VecstoreVectorStore.from_texts(
        list(ANGLES), Compass(), [{"n": n} for n in range(4)], database=db, name="made", metric="l2"
    )
    assert made.namespace.stats().metric == "l2"
    again = await VecstoreVectorStore.afrom_texts(["west"], Compass(), database=db, name="made", ids=["w"])
    assert again.namespace.stats().rows == 5
    assert VecstoreVectorStore.open(db, "made", Compass()).get_by_ids(["w"])[0].page_content == "west"


def test_many_documents_are_several_inserts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langchain, "BATCH_ROWS", 3)
    store = VecstoreVectorStore.open(db, "many", Compass(), dim=2)
    store.add_texts([f"text {i}" for i in range(10)], [{"n": i} for i in range(10)])
    assert store.namespace.stats().rows == 10
    assert store.similarity_search("east", k=1, filter={"n": 9})[0].page_content == "text 9"


def test_a_namespace_that_was_filled_otherwise_is_searched(db: Database) -> None:
    ns = db.create_namespace("other", 2)
    ns.insert([[1, 0], [0, 1]], [7, 8], attributes={"title": ["one", None], "body": ["text", "more"]})
    store = VecstoreVectorStore(ns, Compass(), text_attribute="body")
    assert store.similarity_search("east", k=2) == [
        Document(id="7", page_content="text", metadata={"title": "one"}),
        Document(id="8", page_content="more", metadata={}),
    ]
