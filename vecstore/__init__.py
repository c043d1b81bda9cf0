"""Vector search whose only durable state is object storage."""

from typing import TYPE_CHECKING

from vecstore.api import Database, Namespace, connect, copy_store
from vecstore.errors import VecstoreError

__all__ = ["Database", "Namespace", "VecstoreError", "__version__", "connect", "copy_store"]

__version__: str

if not TYPE_CHECKING:  # to types, any name would be an attribute

    def __getattr__(name):
        """``__version__`` when it is asked for: the metadata of a package take longer to find than we do."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from vecstore.config import package_version

        return package_version()
