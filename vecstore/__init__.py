"""Vector search whose only durable state is object storage."""

from vecstore.api import Database, Namespace, connect, copy_store
from vecstore.errors import VecstoreError

__all__ = ["Database", "Namespace", "VecstoreError", "connect", "copy_store"]
