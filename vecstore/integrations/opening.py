"""The namespace of a vector store: one that is there, or else a new one."""

from __future__ import annotations

from collections.abc import Callable

import vecstore
from vecstore.api import Database, Namespace
from vecstore.errors import NamespaceExists, NamespaceNotFound
from vecstore.types import Metric


def opened(database: Database | str, name: str, dim: Callable[[], int], metric: Metric) -> Namespace:
    """A namespace of a database, or of the URL of one; ``dim`` is asked only if it has to be created."""
    if isinstance(database, str):
        database = vecstore.connect(database)
    try:
        return database.namespace(name)
    except NamespaceNotFound:
        try:
            return database.create_namespace(name, dim(), metric)
        except NamespaceExists:  # somebody else just did
            return database.namespace(name)
