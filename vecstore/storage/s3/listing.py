"""Lists what a bucket holds under a prefix."""

from __future__ import annotations

from typing import Any, Final

from vecstore.storage.base import ListPage, ObjectMeta
from vecstore.storage.checks import can_be_key
from vecstore.storage.s3.client import Client
from vecstore.storage.s3.retry import Retries

_PAGE_KEYS: Final = 1000  # most that S3 lists at once


class Listing:
    """Lists objects of a bucket whose keys start with ``root``, and names them without it."""

    def __init__(self, client: Client, retries: Retries, root: str) -> None:
        self._client = client
        self._retries = retries
        self._root = root

    def objects(self, prefix: str, after: str | None, limit: int) -> ListPage:
        """What can be no key of ours is left out."""
        answer = self._page(prefix, after, limit=limit)
        listed = [(one["Key"][len(self._root) :], one) for one in answer.get("Contents", ())]
        found = tuple(
            ObjectMeta(key, one["Size"], one["ETag"], one["LastModified"].timestamp())
            for key, one in listed
            if can_be_key(key)
        )
        return ListPage(found, listed[-1][0] if answer["IsTruncated"] and listed else None)

    def children(self, prefix: str, after: str | None, limit: int) -> tuple[str, ...]:
        """In the order of names, which is not the order in which S3 lists them.

        S3 orders ``a-b/`` before ``a/``, because ``-`` and ``.`` sort before ``/``. So the page ends
        with a few questions: is there a name that starts the last one seen?
        """
        lowest = after or ""
        names: set[str] = set()
        # From ``after`` itself, not from past its folder: ``after-x/`` lies before ``after/``.
        start = f"{prefix}{lowest}" if lowest else None
        token = ""  # nosec B105
        while True:
            # By token, because not all servers list in the order of keys (SeaweedFS does by segments).
            answer = self._page(prefix, start, delimiter="/", token=token)
            seen = [found["Prefix"] for found in answer.get("CommonPrefixes", ())]
            seen += [found["Key"] for found in answer.get("Contents", ())]
            rests = [key[len(self._root) + len(prefix) :] for key in seen]
            folders = [rest[:-1] for rest in rests if rest.endswith("/")]
            names.update(name for name in folders if name > lowest and can_be_key(name))
            if not answer["IsTruncated"]:
                break
            if len(names) >= limit:
                last = max(rests, default="")
                starts = {last[:i] for i, character in enumerate(last) if character in "-."}
                names.update(name for name in starts - names if name > lowest and self._has(prefix, name))
                break
            token = answer["NextContinuationToken"]
        return tuple(sorted(names)[:limit])

    def _has(self, prefix: str, child: str) -> bool:
        return bool(self._page(f"{prefix}{child}/", None, limit=1).get("Contents"))

    def _page(
        self, prefix: str, after: str | None, *, limit: int = _PAGE_KEYS, delimiter: str = "", token: str = ""
    ) -> Any:
        options = {"Delimiter": delimiter} if delimiter else {}
        if after is not None:  # "" is past an object that is named as the root is
            options["StartAfter"] = self._root + after
        if token:
            options["ContinuationToken"] = token
        return self._retries.run(
            lambda: self._client.ask(
                "list",
                lambda s3: s3.list_objects_v2(
                    Bucket=self._client.bucket,
                    Prefix=self._root + prefix,
                    MaxKeys=min(limit, _PAGE_KEYS),
                    **options,
                ),
                prefix,
            )
        )
