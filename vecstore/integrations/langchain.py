"""LangChain's `VectorStore` over a namespace. Extra ``langchain``."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from vecstore.aio import AsyncNamespace
from vecstore.aio.database import Threads
from vecstore.api import Database, Namespace
from vecstore.errors import InvalidArgument, SchemaConflict
from vecstore.integrations.metadata import TEXT, to_columns, to_metadata
from vecstore.integrations.opening import opened
from vecstore.limits import MAX_FILTER_VALUES, MAX_ID_BYTES
from vecstore.types import Hits, Metric, NamespaceInfo

BATCH_ROWS: Final = 2_000  # of one insert
ATTEMPTS: Final = 3  # of an insert, where others declare attributes meanwhile
_ALL: Final = ["id", "NotEq", None]

Filter = Sequence[Any] | Mapping[str, Any]
_Row = tuple[str, str, dict[str, Any], list[float]]  # id, text, metadata, embedding


class VecstoreVectorStore(VectorStore):
    """Documents as rows of a namespace.

    A document's text is an attribute that is not filterable; its metadata are attributes, which filters may
    name, as far as their types allow, and come back as they were given (`vecstore.integrations.metadata`).
    A namespace that was filled otherwise can be searched as well: its attributes are the metadata.

    Parameters
    ----------
    namespace
        Of the dimension of the embeddings. Ids are strings of at most 64 bytes.
    embedding
        Embeds texts and queries.
    async_namespace
        The same, for the methods that are awaited. By default they run ``namespace`` in threads.
    text_attribute
        Holds the text, at most 64 KiB.

    Scores of `similarity_search_with_score` are distances: lower is nearer.

    ``filter`` of the searches is one of vecstore (``["year", "Gte", 2020]``), or a dict: all of its
    attributes have the value, or one of a list of values.
    """

    def __init__(
        self,
        namespace: Namespace,
        embedding: Embeddings,
        *,
        async_namespace: AsyncNamespace | None = None,
        text_attribute: str = "text",
    ) -> None:
        self.namespace = namespace
        self.async_namespace = async_namespace or AsyncNamespace(namespace, Threads())
        self._embedding = embedding
        self._text = text_attribute
        self._metric: Metric | None = None

    @classmethod
    def open(
        cls,
        database: Database | str,
        name: str,
        embedding: Embeddings,
        *,
        dim: int | None = None,
        metric: Metric = "cosine",
        **options: Any,
    ) -> Self:
        """Over a namespace that is there, or else is created.

        Parameters
        ----------
        database
            A database, or the URL of one (`vecstore.connect`), which then is open as long as the process.
        dim
            Of a new namespace. None: that of an embedding made for the purpose.
        metric
            Of a new namespace.
        options
            Of the class.
        """

        def width() -> int:
            return dim or len(embedding.embed_query("dimension"))

        return cls(opened(database, name, width, metric), embedding, **options)

    @classmethod
    def from_texts(  # type: ignore[override]
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        database: Database | str,
        name: str,
        **options: Any,
    ) -> Self:
        """`open`, and `add_texts`."""
        store = cls.open(database, name, embedding, **options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(  # type: ignore[override]
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        database: Database | str,
        name: str,
        **options: Any,
    ) -> Self:
        """As `from_texts`."""
        store = await asyncio.to_thread(cls.open, database, name, embedding, **options)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    # -- writes ----------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts and upsert them, and give their ids; those that are not given are made.

        Parameters
        ----------
        kwargs
            Of `Namespace.insert`: ``mode``, ``condition``, ``if_match``.
        """
        given, metadatas, identities = _given(texts, metadatas, ids)
        if not given:
            return []
        vectors = self._embedding.embed_documents(given)
        for rows in _batches(given, metadatas, identities, vectors):
            for attempt in range(ATTEMPTS):
                insert = self._insert(rows, self.namespace.stats())
                try:
                    self.namespace.insert(**insert, **kwargs)
                    break
                except SchemaConflict:
                    if attempt == ATTEMPTS - 1:
                        raise
        return identities

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """As `add_texts`."""
        given, metadatas, identities = _given(texts, metadatas, ids)
        if not given:
            return []
        vectors = await self._embedding.aembed_documents(given)
        for rows in _batches(given, metadatas, identities, vectors):
            for attempt in range(ATTEMPTS):
                insert = self._insert(rows, await self.async_namespace.stats())
                try:
                    await self.async_namespace.insert(**insert, **kwargs)
                    break
                except SchemaConflict:
                    if attempt == ATTEMPTS - 1:
                        raise
        return identities

    def delete(self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any) -> bool:
        """Delete documents by id, those that a filter matches, or all; absent ids are no error."""
        chosen = _chosen(ids, filter)
        if chosen.get("ids") != []:
            self.namespace.delete(**chosen, **kwargs)
        return True

    async def adelete(
        self, ids: list[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """As `delete`."""
        chosen = _chosen(ids, filter)
        if chosen.get("ids") != []:
            await self.async_namespace.delete(**chosen, **kwargs)
        return True

    # -- reads -----------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Documents by id, in the order of the ids; without those that are not there."""
        rows = {
            row.id: row.attributes
            for some in _portions(ids)
            for row in self.namespace.scan(filter=["id", "In", some])
        }
        return [self._document(identity, rows[identity]) for identity in ids if identity in rows]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """As `get_by_ids`."""
        rows = {
            row.id: row.attributes
            for some in _portions(ids)
            async for row in self.async_namespace.scan(filter=["id", "In", some])
        }
        return [self._document(identity, rows[identity]) for identity in ids if identity in rows]

    def similarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The ``k`` nearest documents. ``kwargs`` are options of `Namespace.search`, as ``target_recall``."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter=filter, **kwargs)]

    async def asimilarity_search(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search`."""
        found = await self.asimilarity_search_with_score(query, k, filter=filter, **kwargs)
        return [document for document, _ in found]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, with distances."""
        vector = self._embedding.embed_query(query)
        return self._scored(self.namespace.search(vector, k, **_options(filter, kwargs)))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """As `similarity_search_with_score`."""
        vector = await self._embedding.aembed_query(query)
        return self._scored(await self.async_namespace.search(vector, k, **_options(filter, kwargs)))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search`, of a query that is embedded."""
        hits = self.namespace.search(embedding, k, **_options(filter, kwargs))
        return [document for document, _ in self._scored(hits)]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """As `similarity_search_by_vector`."""
        hits = await self.async_namespace.search(embedding, k, **_options(filter, kwargs))
        return [document for document, _ in self._scored(hits)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """``k`` of the ``fetch_k`` nearest documents, near to the query and far from each other."""
        return self.max_marginal_relevance_search_by_vector(
            self._embedding.embed_query(query), k, fetch_k, lambda_mult, filter=filter, **kwargs
        )

    async def amax_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`."""
        return await self.amax_marginal_relevance_search_by_vector(
            await self._embedding.aembed_query(query), k, fetch_k, lambda_mult, filter=filter, **kwargs
        )

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, of a query that is embedded."""
        hits = self.namespace.search(
            embedding, max(k, fetch_k), include=["vector"], **_options(filter, kwargs)
        )
        return self._diverse(embedding, hits, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search_by_vector`."""
        hits = await self.async_namespace.search(
            embedding, max(k, fetch_k), include=["vector"], **_options(filter, kwargs)
        )
        return self._diverse(embedding, hits, k, lambda_mult)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        if self._metric is None:
            self._metric = self.namespace.stats().metric
        if self._metric == "cosine":
            return self._cosine_relevance_score_fn
        if self._metric == "dot":
            return lambda distance: -distance
        return lambda squared: self._euclidean_relevance_score_fn(math.sqrt(max(squared, 0.0)))

    # -- documents as rows, and back -------------------------------------------------------

    def _insert(self, rows: list[_Row], info: NamespaceInfo) -> dict[str, Any]:
        """The arguments of an insert into a namespace that has this schema."""
        ids, texts, metadatas, vectors = zip(*rows, strict=True)
        columns = to_columns(metadatas, info.schema, [self._text])
        declared = {} if self._text in info.schema else {self._text: TEXT}
        return {
            "vectors": np.array(vectors, dtype=np.float32),
            "ids": list(ids),
            "attributes": {self._text: list(texts), **columns.attributes},
            "schema": {**declared, **columns.schema},
        }

    def _scored(self, hits: Hits) -> list[tuple[Document, float]]:
        told = hits.attributes or []
        return [
            (self._document(identity, attributes), float(distance))
            for identity, attributes, distance in zip(hits.ids, told, hits.distances, strict=True)
        ]

    def _diverse(self, embedding: list[float], hits: Hits, k: int, lambda_mult: float) -> list[Document]:
        if not len(hits) or hits.vectors is None:
            return []
        chosen = maximal_marginal_relevance(
            np.array(embedding, dtype=np.float32), list(hits.vectors), lambda_mult=lambda_mult, k=k
        )
        found = self._scored(hits)
        return [found[at][0] for at in chosen]

    def _document(self, identity: object, attributes: Mapping[str, Any]) -> Document:
        return Document(
            id=str(identity),
            page_content=attributes.get(self._text) or "",
            metadata=to_metadata(attributes, [self._text]),
        )


def _batches(
    texts: list[str], metadatas: list[dict[str, Any]], ids: list[str], vectors: list[list[float]]
) -> Iterator[list[_Row]]:
    """Documents in the portions of an insert; of those that have one id, the last."""
    last = {identity: at for at, identity in enumerate(ids)}
    rows = [(ids[at], texts[at], metadatas[at], vectors[at]) for at in last.values()]
    return (rows[at : at + BATCH_ROWS] for at in range(0, len(rows), BATCH_ROWS))


def _given(
    texts: Iterable[str],
    metadatas: list[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Texts with a metadata and an id each."""
    given = list(texts)
    for field, some in (("metadatas", metadatas), ("ids", ids)):
        if some is not None and len(some) != len(given):
            raise InvalidArgument(f"{field} has {len(some)} entries for {len(given)} texts", field=field)
    identities = [identity or str(uuid.uuid4()) for identity in ids or [None] * len(given)]
    return given, metadatas or [{} for _ in given], identities


def _chosen(ids: list[str] | None, filter: Filter | None) -> dict[str, Any]:
    """What a delete is about."""
    if ids is None:
        return {"filter": _ALL if filter is None else as_filter(filter)}
    if filter is not None:
        raise InvalidArgument("a delete takes ids or a filter, not both", field="filter")
    return {"ids": _possible(ids)}


def _possible(ids: Sequence[str]) -> list[str]:
    """Each once, without those that no row can have: they are as absent as any other."""
    return [identity for identity in dict.fromkeys(ids) if 0 < len(identity.encode()) <= MAX_ID_BYTES]


def _portions(ids: Sequence[str]) -> Iterable[list[str]]:
    known = _possible(ids)
    return (known[at : at + MAX_FILTER_VALUES] for at in range(0, len(known), MAX_FILTER_VALUES))


def _options(filter: Filter | None, options: dict[str, Any]) -> dict[str, Any]:
    return {"exclude": (), "filter": as_filter(filter) if filter else None, **options}


def as_filter(given: Filter) -> Sequence[Any]:
    """A filter of vecstore; of a dict, that all of its attributes have the value, or one of a list."""
    if callable(given):
        raise InvalidArgument("a filter is a list or a dict, no function", field="filter")
    if not isinstance(given, Mapping):
        return given
    if not given:
        raise InvalidArgument("a filter that is a dict names an attribute", field="filter")
    found = [
        [key, "In" if isinstance(value, (list, tuple, set)) else "Eq", _plain(value)]
        for key, value in given.items()
    ]
    return found[0] if len(found) == 1 else ["And", found]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, set)) else value
