"""What a path or a URL of a store may be, before anything is opened."""

from __future__ import annotations

import os

from vecstore.errors import InvalidArgument


def path_of(field: str, given: object) -> str:
    """A path or a URL as text. `InvalidArgument` if it is neither."""
    path = os.fspath(given) if isinstance(given, (str, os.PathLike)) else None
    if not isinstance(path, str) or "\0" in path:
        raise InvalidArgument(f"{field} must be a path or a URL, as a string or a path object", field=field)
    return str.__str__(path)


def is_server(url: str) -> bool:
    """Whether a URL names a server, and no store."""
    return url.lower().startswith(("http://", "https://"))


def is_s3(url: str) -> bool:
    """Whether a URL names a store on S3."""
    return url.lower().startswith("s3://")
