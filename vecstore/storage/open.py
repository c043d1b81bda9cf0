"""From a URL to a store. Imports a store's module only when one is asked for: boto3 is slow to load."""

from __future__ import annotations

import os
import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from vecstore.errors import InvalidArgument
from vecstore.observe import Observer
from vecstore.storage.base import ObjectStore

_SHORT_OF_SLASHES: Final = re.compile(r"(s3|file|memory|https?):", re.IGNORECASE)


def open_store(url: str, *, observer: Observer | None = None, **options: Any) -> ObjectStore:
    """The store that ``url`` names.

    Parameters
    ----------
    url
        ``./path``, ``/path``, ``~/path`` or ``file:///path``; ``s3://bucket/prefix``; ``memory://name``,
        shared by all of this process that ask for the name, or ``memory://``, private to this handle.
    observer
        Hears of each request to the store.
    **options
        Passed to `S3Store`; the other stores take none.

    Raises
    ------
    InvalidArgument
        The URL or an option means nothing to us, or something stands there that is no directory.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        short = _SHORT_OF_SLASHES.match(url)
        if short is not None:
            name = short[1].lower()
            raise InvalidArgument(
                f"{url!r} is no URL: after {name}: come two slashes (./{url} is a directory)", field="url"
            )
        scheme, rest = "file", os.path.expanduser(url)
        if rest.startswith("~"):
            raise InvalidArgument(
                f"{url!r}: there is no home {url.partition('/')[0]} (./{url} is a directory)", field="url"
            )
    elif scheme == "file":
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise InvalidArgument(f"{url!r} is not a file of this machine", field="url")
        rest = unquote(parts.path)
    if scheme == "s3":
        return _open_s3(rest, {**options, "observer": observer})
    if scheme not in ("file", "memory"):
        raise InvalidArgument(f"no store for {scheme}:// URLs", field="url")
    if options:
        raise InvalidArgument(f"{scheme} stores take no option {min(options)!r}", field=min(options))
    store = _open_here(scheme, rest)
    if observer is None:
        return store
    from vecstore.storage.observed import ObservedStore

    return ObservedStore(store, observer)


def _open_here(scheme: str, rest: str) -> ObjectStore:
    """A store of this process or of this machine."""
    if scheme == "memory":
        from vecstore.storage.memory import MemoryStore, named_store

        return named_store(rest) if rest else MemoryStore()
    if not rest or "\0" in rest:
        raise InvalidArgument("the path of a store is empty or malformed", field="url")
    from vecstore.storage.local import LocalStore, obstacle

    at = obstacle(rest)
    if at is not None:
        raise InvalidArgument(f"{at} is no directory: no store can be there", field="url")
    return LocalStore(rest)


def _open_s3(rest: str, options: dict[str, Any]) -> ObjectStore:
    bucket, _, prefix = rest.partition("/")
    if not bucket or "@" in bucket or "?" in rest or "#" in rest:
        raise InvalidArgument("an S3 URL is s3://bucket or s3://bucket/prefix", field="url")
    from vecstore.storage.s3 import S3Store

    try:
        return S3Store(bucket, prefix, **options)
    except TypeError as error:
        raise InvalidArgument(f"{error}", field="options") from error
