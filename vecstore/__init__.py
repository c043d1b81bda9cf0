"""Vector search whose only durable state is object storage."""

from vecstore.api import Database, Namespace, connect
from vecstore.errors import VecstoreError

__all__ = ["Database", "Namespace", "VecstoreError", "connect"]
