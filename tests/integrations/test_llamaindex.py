"""LlamaIndex's vector store: what its `SimpleVectorStore` does, ours does, with equal answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core", reason="needs the extra llama-index")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import ImageNode, IndexNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

import vecstore
import vecstore.aio
from tests.server.support import Server, running_server
from vecstore.api import Database
from vecstore.errors import InvalidArgument, InvalidFilter
from vecstore.integrations import llamaindex
from vecstore.integrations.llamaindex import VecstoreVectorStore

DIM = 4
Op = FilterOperator
METADATA: list[dict[str, Any]] = [
    {"lang": "en", "year": 2020, "price": 1.0, "tags": ["red", "green"], "code": "AB-12.x", "ok": True},
    {"lang": "de", "year": 2021, "price": 2.5, "tags": ["red"], "code": "ab-13", "ok": False},
    {"lang": "fr", "year": 2022, "price": 3.0, "tags": [], "code": "", "ok": True},
    {"lang": "en", "year": 2023, "tags": ["blue", "green", "red"], "code": "Zürich (AB)"},
    {"lang": None, "price": -1.0, "nested": {"x": [1]}},
    {},
]


def node(at: int, **options: Any) -> TextNode:
    rng = np.random.default_rng(at)
    return TextNode(
        id_=f"node-{at}",
        text=f"text {at}",
        embedding=rng.standard_normal(DIM).tolist(),
        metadata=METADATA[at % len(METADATA)],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"doc-{at // 2}")},
        **options,
    )


NODES = [node(at) for at in range(12)]
ASKED = [0.3, -1.0, 0.5, 0.2]


def only(key: str, value: Any, operator: Op = Op.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def asked(top_k: int = 20, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_embedding=ASKED, similarity_top_k=top_k, **options)


@pytest.fixture(params=["simple", "embedded", "http"])
def store(request: pytest.FixtureRequest) -> Iterator[BasePydanticVectorStore]:
    """An empty store of each kind."""
    if request.param == "simple":
        yield SimpleVectorStore()
    elif request.param == "embedded":
        with vecstore.connect("memory://", maintenance="off") as db:
            yield VecstoreVectorStore.open(db, "nodes", DIM)
    else:
        with vecstore.connect(request.getfixturevalue("server").url) as db:
            yield VecstoreVectorStore.open(db, "nodes", DIM)
            db.delete_namespace("nodes")


def ids(store: BasePydanticVectorStore, **options: Any) -> list[str]:
    found = store.query(asked(**options)).ids
    assert found is not None
    return found


# -- the contract --------------------------------------------------------------------------


def test_a_new_store_finds_nothing(store: BasePydanticVectorStore) -> None:
    assert ids(store) == []


def test_added_nodes_are_found_by_similarity(store: BasePydanticVectorStore) -> None:
    assert store.add(NODES) == [one.node_id for one in NODES]
    given = np.array([one.embedding for one in NODES])
    cosines = given @ ASKED / np.linalg.norm(given, axis=1) / np.linalg.norm(ASKED)
    found = store.query(asked(5))
    assert found.ids == [f"node-{at}" for at in np.argsort(-cosines)[:5]]
    np.testing.assert_allclose(found.similarities, np.sort(cosines)[::-1][:5], atol=0.01)


def test_the_same_id_again_replaces_a_node(store: BasePydanticVectorStore) -> None:
    store.add(NODES)
    store.add([TextNode(id_="node-3", text="new", embedding=ASKED, metadata={"lang": "new"})])
    assert ids(store)[0] == "node-3"
    assert ids(store, filters=only("lang", "new")) == ["node-3"]
    assert len(ids(store)) == len(NODES)


def test_of_nodes_with_one_id_the_last_stays(store: BasePydanticVectorStore) -> None:
    store.add([node(0), TextNode(id_="node-0", text="", embedding=ASKED, metadata={"lang": "last"})])
    assert ids(store, filters=only("lang", "last")) == ["node-0"]
    assert len(ids(store)) == 1


def test_a_document_is_deleted_with_all_its_nodes(store: BasePydanticVectorStore) -> None:
    store.add(NODES)
    store.delete("doc-1")
    store.delete("not there")
    assert sorted(set(ids(store)) ^ {one.node_id for one in NODES}) == ["node-2", "node-3"]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"node_ids": ["node-1", "none"]}, 11),
        ({"node_ids": []}, 12),
        ({"filters": only("lang", "en")}, 8),
        ({"node_ids": ["node-0", "node-1"], "filters": only("lang", "en")}, 11),
        ({}, 0),
    ],
)
def test_nodes_are_deleted_by_ids_and_filters(
    store: BasePydanticVectorStore, options: dict[str, Any], left: int
) -> None:
    store.add(NODES)
    store.delete_nodes(**options)
    assert len(ids(store)) == left


def test_a_cleared_store_is_empty_and_takes_nodes_again(store: BasePydanticVectorStore) -> None:
    store.add(NODES)
    store.clear()
    assert ids(store) == []
    store.add(NODES[:2])
    assert len(ids(store)) == 2


def test_a_query_is_narrowed_to_nodes(store: BasePydanticVectorStore) -> None:
    store.add(NODES)
    assert sorted(ids(store, node_ids=["node-1", "node-3", "none"])) == ["node-1", "node-3"]
    assert ids(store, node_ids=["node-1", "node-3"], filters=only("lang", "en")) == ["node-3"]


def test_an_unknown_mode_is_refused(store: BasePydanticVectorStore) -> None:
    store.add(NODES)
    with pytest.raises(ValueError, match="mode"):
        store.query(asked(mode=VectorStoreQueryMode.HYBRID))


def test_a_persisted_index_is_loaded_again_and_still_answers(
    store: BasePydanticVectorStore, tmp_path: Any
) -> None:
    store.add(NODES)
    store.persist(str(tmp_path / "store.json"))
    again: BasePydanticVectorStore
    if isinstance(store, VecstoreVectorStore):
        again = VecstoreVectorStore(store.client)
    else:
        again = SimpleVectorStore.from_persist_path(str(tmp_path / "store.json"))
    assert ids(again) == ids(store)


# -- equal answers -------------------------------------------------------------------------

FILTERS: list[MetadataFilters] = [
    only("lang", "en"),
    only("lang", "xx"),
    only("lang", 7),
    only("unknown", "x"),
    only("year", 2021),
    only("year", 2021.0),
    only("year", 2021.5),
    only("price", 3),
    only("ok", 1),
    only("tags", "red"),
    only("lang", None),
    only("lang", "en", Op.NE),
    only("unknown", "x", Op.NE),
    only("year", "2021", Op.NE),
    only("tags", "red", Op.NE),
    *(only(key, value, op) for op in (Op.GT, Op.GTE, Op.LT, Op.LTE) for key, value in [
        ("year", 2021), ("year", 2021.5), ("year", 2022.0), ("price", 2.5), ("price", 2), ("lang", "en"),
        ("unknown", 1),
    ]),
    *(only(key, value, op) for op in (Op.IN, Op.NIN) for key, value in [
        ("lang", ["en", "fr"]), ("lang", ["xx"]), ("lang", []), ("year", [2020, 2023]), ("year", ["x"]),
        ("year", [2020.0, 2021.5]), ("unknown", ["x"]), ("tags", ["red"]),
    ]),
    *(only(key, value, Op.CONTAINS) for key, value in [
        ("tags", "red"), ("tags", "none"), ("code", "AB"), ("code", "-1"), ("unknown", "x"),
    ]),
    *(only(key, value, op) for op in (Op.ANY, Op.ALL) for key, value in [
        ("tags", ["red", "green"]), ("tags", ["blue"]), ("tags", []), ("code", ["AB", "12"]),
        ("unknown", ["x"]),
    ]),
    *(only("code", value, op) for op in (Op.TEXT_MATCH, Op.TEXT_MATCH_INSENSITIVE) for value in [
        "AB", "ab", ".x", "(AB)", "ü", "Ü", "", "$", "\\",
    ]),
    *(only(key, None, Op.IS_EMPTY) for key in ("lang", "year", "price", "tags", "code", "ok", "unknown")),
    only("doc_id", "doc-1"),
    only("ref_doc_id", "doc-2", Op.NE),
    MetadataFilters(filters=[]),
    MetadataFilters(filters=[], condition=FilterCondition.NOT),
    *(
        MetadataFilters(
            filters=[
                MetadataFilter(key="lang", value="en"),
                MetadataFilter(key="year", value=2021, operator=Op.LTE),
            ],
            condition=condition,
        )
        for condition in (FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT, None)
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[BasePydanticVectorStore]]:
    """The simple store and ours, with the same nodes, on a server that no other test clears."""
    with (
        running_server(tmp_path_factory.mktemp("store") / "data", "--workers", "1") as server,
        vecstore.connect("memory://", maintenance="off") as embedded,
        vecstore.connect(server.url) as served,
    ):
        stores = [
            SimpleVectorStore(),
            VecstoreVectorStore.open(embedded, "twin", DIM),
            VecstoreVectorStore.open(served, "twin", DIM),
        ]
        for store in stores:
            store.add(NODES)
        yield stores


def test_every_filter_gives_the_answer_of_the_simple_store(twins: list[BasePydanticVectorStore]) -> None:
    for filters in FILTERS:
        expected, *others = [store.query(asked(filters=filters)) for store in twins]
        for found in others:
            assert found.ids == expected.ids, filters
            np.testing.assert_allclose(found.similarities, expected.similarities, atol=0.01)


def test_every_operator_is_in_the_table() -> None:
    assert {one.operator for filters in FILTERS for one in filters.filters} == set(FilterOperator)


@pytest.mark.parametrize("threshold", [None, 0.1, 0.3, 0.5, 0.9, 1.0])
def test_marginal_relevance_gives_the_answer_of_the_simple_store(
    twins: list[BasePydanticVectorStore], threshold: float | None
) -> None:
    query = asked(5, mode=VectorStoreQueryMode.MMR)
    expected, *others = [
        store.query(query, mmr_threshold=threshold, mmr_prefetch_k=len(NODES)) for store in twins
    ]
    for found in others:
        assert found.ids == expected.ids
        np.testing.assert_allclose(found.similarities, expected.similarities, atol=0.01)


def test_nested_conditions_are_those_of_their_parts(twins: list[BasePydanticVectorStore]) -> None:
    """The simple store has none, so the parts are combined here."""
    simple, *ours = twins
    english, late = only("lang", "en"), only("year", 2022, Op.GTE)
    sets = [set(ids(simple, filters=one)) for one in (english, late)]
    universe = set(ids(simple))
    for condition, expected in [
        (FilterCondition.AND, sets[0] & sets[1]),
        (FilterCondition.OR, sets[0] | sets[1]),
        (FilterCondition.NOT, universe - sets[0] - sets[1]),
    ]:
        inner = MetadataFilters(filters=[english, late], condition=condition)
        outer = MetadataFilters(filters=[inner], condition=FilterCondition.NOT)
        for store in ours:
            assert set(ids(store, filters=inner)) == expected
            assert set(ids(store, filters=outer)) == universe - expected


@pytest.mark.parametrize(
    "filters",
    [
        only("year", "2021", Op.GT),
        only("price", "1", Op.TEXT_MATCH),
        only("price", "1", Op.TEXT_MATCH_INSENSITIVE),
        only("year", 20, Op.CONTAINS),
    ],
)
def test_what_has_no_meaning_for_a_type_is_an_error(
    twins: list[BasePydanticVectorStore], filters: MetadataFilters
) -> None:
    simple, *ours = twins
    with pytest.raises(TypeError):
        simple.query(asked(filters=filters))
    for store in ours:
        with pytest.raises(InvalidFilter):
            store.query(asked(filters=filters))


# -- what the simple store has not ---------------------------------------------------------


@pytest.fixture
def ours(db: Database) -> VecstoreVectorStore:
    return VecstoreVectorStore.open(db, "nodes", DIM)


@pytest.mark.parametrize(
    "make",
    [
        lambda: node(0),
        lambda: TextNode(id_="x", text="", embedding=ASKED, metadata={"a": [1, "b"], "year": "no number"}),
        lambda: IndexNode(id_="x", text="t", index_id="i", embedding=ASKED),
        lambda: ImageNode(id_="x", text="t", image_url="http://image", embedding=ASKED),
        lambda: TextNode(id_="x", text="long " * 10_000, embedding=ASKED),
    ],
)
def test_nodes_come_back_whole(ours: VecstoreVectorStore, make: Callable[[], Any]) -> None:
    ours.add(NODES[2:4])
    given = make()
    ours.add([given])
    [found] = ours.get_nodes([given.node_id])
    assert type(found) is type(given)
    assert found == given.model_copy(update={"embedding": None})
    nodes = ours.query(asked(1, node_ids=[given.node_id])).nodes
    assert nodes == [found]


async def test_the_methods_that_are_awaited_do_the_same(ours: VecstoreVectorStore) -> None:
    assert await ours.async_add(NODES) == [one.node_id for one in NODES]
    found = await ours.aquery(asked(3, filters=only("lang", "en")))
    assert found.ids == ours.query(asked(3, filters=only("lang", "en"))).ids
    by_id = await ours.aget_nodes(["node-1", "none"])
    assert [one.node_id for one in by_id] == ["node-1"]
    assert len(await ours.aget_nodes(filters=only("lang", "en"))) == 4
    await ours.adelete("doc-0")
    await ours.adelete_nodes(["node-2"])
    await ours.adelete_nodes(filters=only("lang", "en"))
    left = {int(one.node_id.removeprefix("node-")) for one in ours.get_nodes()}
    assert left == {4, 5, 7, 8, 10, 11}
    await ours.aclear()
    assert ours.get_nodes() == []


async def test_an_async_namespace_is_used_where_there_is_one(server: Server) -> None:
    with vecstore.connect(server.url) as db:
        plain = db.create_namespace("both", DIM)
        async with vecstore.aio.connect(server.url) as awaited:
            store = VecstoreVectorStore(plain, async_namespace=await awaited.namespace("both"))
            await store.async_add(NODES)
            assert (await store.aquery(asked(1))).ids == store.query(asked(1)).ids
        db.delete_namespace("both")


def test_a_query_is_narrowed_to_documents(ours: VecstoreVectorStore) -> None:
    ours.add(NODES)
    assert sorted(ids(ours, doc_ids=["doc-0", "doc-9"])) == ["node-0", "node-1"]


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_similarity_rises_with_nearness_whatever_the_metric(db: Database, metric: Any) -> None:
    store = VecstoreVectorStore.open(db, f"of-{metric}", DIM, metric, search_options={"target_recall": 0.99})
    store.add(NODES)
    found = store.query(asked(5)).similarities
    assert found == sorted(found or [], reverse=True)


def test_many_nodes_are_several_inserts(ours: VecstoreVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llamaindex, "BATCH_ROWS", 5)
    ours.add(NODES)
    assert len(ids(ours)) == len(NODES)


def test_a_query_without_an_embedding_is_refused(ours: VecstoreVectorStore) -> None:
    with pytest.raises(InvalidArgument, match="embedding"):
        ours.query(VectorStoreQuery())


def test_an_index_retrieves_from_it_and_is_opened_again(ours: VecstoreVectorStore) -> None:
    embed = MockEmbedding(embed_dim=DIM)
    context = StorageContext.from_defaults(vector_store=ours)
    VectorStoreIndex(NODES[:4], storage_context=context, embed_model=embed)
    again = VectorStoreIndex.from_vector_store(VecstoreVectorStore(ours.client), embed_model=embed)
    retriever = again.as_retriever(similarity_top_k=2, filters=only("lang", "en"))
    found = retriever.retrieve("anything")
    assert sorted(one.node.get_content() for one in found) == ["text 0", "text 3"]
