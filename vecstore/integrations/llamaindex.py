"""LlamaIndex's vector store over a namespace. Extra ``llama-index``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
from pydantic import PrivateAttr

from vecstore.aio import AsyncNamespace
from vecstore.aio.database import Threads
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument, SchemaConflict
from vecstore.integrations.llamaindex_filters import ALL, Filter, to_filter
from vecstore.integrations.metadata import REST, TEXT, Schema, to_columns
from vecstore.integrations.opening import opened
from vecstore.limits import MAX_FILTER_VALUES
from vecstore.types import Hits, Metric

BATCH_ROWS: Final = 2_000  # of one insert
ATTEMPTS: Final = 3  # of an insert, where others declare attributes meanwhile
PREFETCH: Final = 4  # nodes that MMR chooses from, for each that is asked for
_TEXT: Final = "text"
_NODE: Final = "_node_content"
_DOCUMENT: Final = "ref_doc_id"
_READ: Final = (_TEXT, _NODE, "_node_type")
_SCHEMA: Final = {_TEXT: TEXT, _NODE: TEXT, "_node_type": "string", _DOCUMENT: "string"}  # of every namespace


class VecstoreVectorStore(BasePydanticVectorStore):
    """Nodes as rows of a namespace.

    A node is kept as LlamaIndex writes it, in attributes that are not filterable; its metadata are attributes
    as well, which filters see as far as their types allow (`vecstore.integrations.metadata`). The namespace
    keeps what is added, so there is nothing to `persist`.

    Parameters
    ----------
    namespace
        Of the dimension of the embeddings. Ids of nodes have at most 64 bytes.
    async_namespace
        The same, for the methods that are awaited. By default they run ``namespace`` in threads.
    search_options
        Of `Namespace.search`, as ``{"target_recall": 0.99}``, for every query.

    Similarities are the cosine, the dot product, or ``1 / (1 + squared distance)``, by the metric.
    """

    stores_text: bool = True

    _namespace: Namespace = PrivateAttr()
    _async_namespace: AsyncNamespace = PrivateAttr()
    _options: dict[str, Any] = PrivateAttr()
    _metric: Metric = PrivateAttr()

    def __init__(
        self,
        namespace: Namespace,
        *,
        async_namespace: AsyncNamespace | None = None,
        search_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(stores_text=True)
        self._namespace = namespace
        self._async_namespace = async_namespace or AsyncNamespace(namespace, Threads())
        self._options = dict(search_options or {})
        info = namespace.stats()
        self._metric = info.metric
        if missing := {name: spec for name, spec in _SCHEMA.items() if name not in info.schema}:
            namespace.update(schema=missing)

    @classmethod
    def open(
        cls,
        database: Database | str,
        name: str,
        dim: int,
        metric: Metric = "cosine",
        **options: Any,
    ) -> Self:
        """Over a namespace that is there, or else is created with this dimension and metric.

        Parameters
        ----------
        database
            A database, or the URL of one (`vecstore.connect`), which then is open as long as the process.
        options
            Of the class.
        """
        return cls(opened(database, name, lambda: dim, metric), **options)

    @classmethod
    def class_name(cls) -> str:
        return "VecstoreVectorStore"

    @property
    def client(self) -> Namespace:
        """The namespace."""
        return self._namespace

    # -- writes ----------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Upsert nodes, which have their embeddings. ``kwargs`` are those of `Namespace.insert`."""
        for some in _batches(nodes):
            for attempt in range(ATTEMPTS):
                try:
                    self._namespace.insert(**_insert(some, self._namespace.stats().schema), **kwargs)
                    break
                except SchemaConflict:
                    if attempt == ATTEMPTS - 1:
                        raise
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        for some in _batches(nodes):
            for attempt in range(ATTEMPTS):
                try:
                    info = await self._async_namespace.stats()
                    await self._async_namespace.insert(**_insert(some, info.schema), **kwargs)
                    break
                except SchemaConflict:
                    if attempt == ATTEMPTS - 1:
                        raise
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002
        """Delete all nodes of a document."""
        self._namespace.delete(filter=[_DOCUMENT, "Eq", ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:  # noqa: ARG002
        """As `delete`."""
        await self._async_namespace.delete(filter=[_DOCUMENT, "Eq", ref_doc_id])

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002
    ) -> None:
        """Delete the nodes of these ids which the filters match; without either, all that the other says."""
        for filter in _chosen(node_ids, filters, self._schema(filters)):
            self._namespace.delete(filter=filter or ALL)

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,  # noqa: ARG002
    ) -> None:
        """As `delete_nodes`."""
        for filter in _chosen(node_ids, filters, await self._aschema(filters)):
            await self._async_namespace.delete(filter=filter or ALL)

    def clear(self) -> None:
        """Delete all nodes."""
        self._namespace.delete(filter=ALL)

    async def aclear(self) -> None:
        """As `clear`."""
        await self._async_namespace.delete(filter=ALL)

    # -- reads -----------------------------------------------------------------------------

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes of these ids which the filters match; without either, all that the other says."""
        return [
            _node(row.attributes)
            for filter in _chosen(node_ids, filters, self._schema(filters))
            for row in self._namespace.scan(filter=filter)
        ]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        return [
            _node(row.attributes)
            for filter in _chosen(node_ids, filters, await self._aschema(filters))
            async for row in self._async_namespace.scan(filter=filter)
        ]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nearest nodes, by mode ``default`` or ``mmr``.

        Parameters
        ----------
        kwargs
            Of MMR: ``mmr_threshold``, in place of the query's, 0.5 by default; ``mmr_prefetch_k``, how many
            of the nearest nodes it chooses from, by default four times as many as are asked for.
        """
        schema = self._schema(query.filters)
        hits = self._namespace.search(**self._search(query, schema, kwargs))
        return self._result(query, hits, kwargs)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """As `query`."""
        schema = await self._aschema(query.filters)
        hits = await self._async_namespace.search(**self._search(query, schema, kwargs))
        return self._result(query, hits, kwargs)

    # -- queries as searches ---------------------------------------------------------------

    def _schema(self, needed: object) -> Schema:
        return self._namespace.stats().schema if needed else {}

    async def _aschema(self, needed: object) -> Schema:
        return (await self._async_namespace.stats()).schema if needed else {}

    def _search(self, query: VectorStoreQuery, schema: Schema, kwargs: dict[str, Any]) -> dict[str, Any]:
        if query.query_embedding is None:
            raise InvalidArgument("a query needs its embedding", field="query_embedding")
        top_k = query.similarity_top_k
        if query.mode == VectorStoreQueryMode.MMR:
            top_k = max(top_k, kwargs.get("mmr_prefetch_k") or PREFETCH * top_k)
        elif query.mode != VectorStoreQueryMode.DEFAULT:
            raise InvalidArgument(f"query mode {query.mode.value!r} is not there", field="mode")
        parts = [to_filter(query.filters, schema)]
        if query.node_ids:  # an index over a store that was there asks with an empty list, and means all
            parts.append(["id", "In", query.node_ids])
        if query.doc_ids:
            parts.append([_DOCUMENT, "In", query.doc_ids])
        mmr = query.mode == VectorStoreQueryMode.MMR
        include = (*_READ, "vector") if mmr else _READ
        return {
            "vector": query.query_embedding,
            "top_k": top_k,
            "filter": _and(parts),
            "include": include,
            **self._options,
        }

    def _result(self, query: VectorStoreQuery, hits: Hits, kwargs: dict[str, Any]) -> VectorStoreQueryResult:
        nodes = [_node(attributes) for attributes in hits.attributes or ()]
        ids = [str(identity) for identity in hits.ids]
        similarities = [self._similarity(float(distance)) for distance in hits.distances]
        if query.mode == VectorStoreQueryMode.MMR and hits.vectors is not None and ids:
            threshold = kwargs.get("mmr_threshold", query.mmr_threshold)
            similarities, order = get_top_k_mmr_embeddings(
                query.query_embedding or [],
                hits.vectors.tolist(),
                similarity_top_k=query.similarity_top_k,
                embedding_ids=list(range(len(ids))),
                mmr_threshold=threshold,
            )
            nodes, ids = [nodes[at] for at in order], [ids[at] for at in order]
        return VectorStoreQueryResult(nodes=nodes, similarities=similarities, ids=ids)

    def _similarity(self, distance: float) -> float:
        to_similarity: Callable[[float], float] = {
            "cosine": lambda d: 1.0 - d,
            "dot": lambda d: -d,
            "l2": lambda d: 1.0 / (1.0 + max(d, 0.0)),
        }[self._metric]
        return to_similarity(distance)


def _batches(nodes: Sequence[BaseNode]) -> Iterator[list[BaseNode]]:
    """Nodes in the portions of an insert; of those that have one id, the last."""
    last = list({node.node_id: node for node in nodes}.values())
    return (last[at : at + BATCH_ROWS] for at in range(0, len(last), BATCH_ROWS))


def _insert(nodes: list[BaseNode], schema: Schema) -> dict[str, Any]:
    """The arguments of an insert into a namespace that has this schema."""
    metadatas = [node_to_metadata_dict(node, remove_text=True) for node in nodes]
    contents = [metadata.pop(_NODE) for metadata in metadatas]
    columns = to_columns(metadatas, schema, [_TEXT, _NODE])
    attributes = {
        **columns.attributes,
        _NODE: contents,
        _TEXT: [node.get_content(MetadataMode.NONE) for node in nodes],
    }
    attributes.pop(REST, None)  # the node's own JSON has all of its metadata
    return {
        "vectors": np.array([node.get_embedding() for node in nodes], dtype=np.float32),
        "ids": [node.node_id for node in nodes],
        "attributes": attributes,
        "schema": {name: spec for name, spec in columns.schema.items() if name != REST},
    }


def _node(attributes: Mapping[str, Any]) -> BaseNode:
    return metadata_dict_to_node(dict(attributes), text=attributes[_TEXT])


def _chosen(
    node_ids: list[str] | None, filters: MetadataFilters | None, schema: Schema
) -> Iterable[Filter | None]:
    """The filters, by and by, of nodes with these ids."""
    filter = to_filter(filters, schema)
    if node_ids is None:
        return [filter]
    ids = list(dict.fromkeys(node_ids))
    return [
        _and([filter, ["id", "In", ids[at : at + MAX_FILTER_VALUES]]])
        for at in range(0, len(ids), MAX_FILTER_VALUES)
    ]


def _and(parts: Iterable[Filter | None]) -> Filter | None:
    found = [part for part in parts if part is not None]
    return None if not found else found[0] if len(found) == 1 else ["And", found]
