"""Tries out what vecstore asks of a store, so that a user's bucket can be told to be fit or not.

It speaks through two handles of the `ObjectStore` protocol, as two nodes would, under a folder of its
own that it empties at the end. What each kind of server is known to do is in ``docs/stores.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from vecstore.errors import (
    StorageConflict,
    StorageCorrupt,
    StorageMissing,
    Unauthorised,
    VecstoreError,
)
from vecstore.storage.base import ByteRange, ObjectStore

RACERS: Final = 8  # threads that want the same thing
ROUNDS: Final = 4  # increments of a number by each of them
TRIES: Final = 200  # of each of them to make its increments
PIECE: Final = 5 << 20  # bytes: an upload of two such pieces comes in parts
MOST_SKEW: Final = 300.0  # seconds; from 900 on S3 refuses our signatures


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one check.

    Attributes
    ----------
    name, asks
        Which, and what is asked of the store.
    problem
        What is missing; empty if nothing is.
    """

    name: str
    asks: str
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem


class _Lacks(Exception):
    """The store does not do what is asked."""


def examine(mine: ObjectStore, theirs: ObjectStore, folder: str) -> Iterator[Finding]:
    """Check after check; each stands for itself.

    Parameters
    ----------
    mine, theirs
        Two handles of the store: what one writes, the other has to see.
    folder
        A prefix that nobody else uses, without ``/`` at its end.

    Raises
    ------
    VecstoreError
        The store cannot be reached at all, or does not let us in.
    """
    mine.list(f"{folder}/", limit=1)
    for check in (
        _create,
        _read_after_write,
        _replace,
        _not_modified,
        _ranges,
        _listing,
        _delete,
        _one_creator,
        _no_lost_update,
        _upload_in_parts,
        _upload_that_breaks,
        _clock,
    ):
        name = check.__name__.strip("_").replace("_", " ")
        asks = " ".join((check.__doc__ or "").split())
        try:
            check(mine, theirs, f"{folder}/{check.__name__.strip('_')}")
        except _Lacks as lack:
            yield Finding(name, asks, str(lack))
        except VecstoreError as error:
            yield Finding(name, asks, f"{error.code}: {error.message}")
        else:
            yield Finding(name, asks)
    _empty(mine, f"{folder}/")


def _create(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """PUT with If-None-Match: * creates an object, and refuses where there is one."""
    mine.put_if_absent(f"{at}/x", b"first")
    for store in (mine, theirs):
        _refused(lambda store=store: store.put_if_absent(f"{at}/x", b"second"), "an object was created twice")  # type: ignore[misc]
    _same(theirs.get(f"{at}/x").data, b"first", "a refused PUT changed the object")


def _read_after_write(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """What was written is read at once, from elsewhere too, also where it was missed just before."""
    for number in range(5):
        key, data = f"{at}/{number}", b"%d" % number
        with suppress(StorageMissing):
            theirs.get(key)
        etag = mine.put_if_absent(key, data).etag
        found = theirs.get(key)
        _same(found.data, data, "another content was read than written")
        _same(found.meta.etag, etag, "reading tells another ETag than writing")
        mine.put_if_match(key, data + b"!", etag)
        _same(theirs.get(key).data, data + b"!", "an old content was read after it was replaced")


def _replace(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """PUT with If-Match replaces what has this ETag, and nothing else: no stale one, nothing absent."""
    key = f"{at}/x"
    first = mine.put_if_absent(key, b"1").etag
    second = theirs.put_if_match(key, b"2", first).etag
    if first == second:
        raise _Lacks("the ETag did not change with the content")
    for stale in (first, '"0123456789abcdef0123456789abcdef"'):
        _refused(lambda stale=stale: mine.put_if_match(key, b"3", stale), "a stale ETag was accepted")  # type: ignore[misc]
    _same(theirs.get(key).data, b"2", "a refused PUT changed the object")
    mine.delete(key)
    _refused(lambda: mine.put_if_match(key, b"4", second), "an absent object was replaced")
    try:
        theirs.head(key)
    except StorageMissing:
        return
    raise _Lacks("a refused PUT created the object")


def _not_modified(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """GET with If-None-Match answers 304 while an object has this ETag, else sends it."""
    key = f"{at}/x"
    etag = mine.put_if_absent(key, b"a").etag
    if theirs.get_if_changed(key, etag) is not None:
        raise _Lacks("an unchanged object was sent again")
    mine.put_if_match(key, b"b", etag)
    found = theirs.get_if_changed(key, etag)
    if found is None:
        raise _Lacks("a change was not noticed")
    _same(found.data, b"b", "an old content was sent")


def _ranges(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """GET with Range sends these bytes, and says so where an object ends before them."""
    data = bytes(range(256)) * 40
    mine.put_if_absent(f"{at}/x", data)
    wanted = [ByteRange(0, 1), ByteRange(5_000, 700), ByteRange(len(data) - 1, 1)]
    found = [bytes(one) for one in theirs.get_ranges(f"{at}/x", wanted)]
    _same(found, [data[one.start : one.stop] for one in wanted], "a range holds other bytes")
    try:
        theirs.get_range(f"{at}/x", len(data), 1)
    except StorageCorrupt:
        return
    raise _Lacks("bytes beyond the end were sent")


def _listing(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """A listing shows at once what was written and deleted, in order, by prefix, page by page."""
    keys = [f"{at}/{folder}/{number}" for folder in ("a", "b") for number in range(4)]
    for key in reversed(keys):
        mine.put_if_absent(key, b"x")
    for prefix in (f"{at}/", f"{at}/a/"):
        seen: list[str] = []
        after: str | None = None
        while True:
            page = theirs.list(prefix, after=after, limit=3)
            seen += [meta.key for meta in page.objects]
            after = page.next
            if after is None or len(seen) > len(keys):
                break
        _same(seen, [key for key in keys if key.startswith(prefix)], f"the listing shows {len(seen)} objects")
    _same(theirs.list_children(f"{at}/"), ("a", "b"), "folders are not listed")
    mine.delete(keys[0])
    _same(
        [meta.key for meta in theirs.list(f"{at}/a/").objects], keys[1:4], "a deleted object is listed still"
    )


def _delete(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """DELETE removes an object at once, and does not mind if there is none."""
    mine.put_if_absent(f"{at}/x", b"1")
    mine.delete(f"{at}/x")
    mine.delete(f"{at}/x")
    with suppress(StorageMissing):
        theirs.get(f"{at}/x")
        raise _Lacks("a deleted object was read")
    theirs.put_if_absent(f"{at}/x", b"2")


def _one_creator(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """Of many that create one object at a time, one is told that it did."""
    for turn in range(ROUNDS):

        def create(number: int, turn: int = turn) -> int:
            try:
                (mine, theirs)[number % 2].put_if_absent(f"{at}/{turn}", b"%d" % number)
            except StorageConflict:
                return 0
            return 1

        with ThreadPoolExecutor(RACERS) as pool:
            won = sum(pool.map(create, range(RACERS)))
        _same(won, 1, f"{won} of {RACERS} were told that they created the same object")


def _no_lost_update(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """Many that replace one object by its ETag at a time do so one after another."""
    key = f"{at}/x"
    mine.put_if_absent(key, b"0")

    def increment(number: int) -> None:
        store = (mine, theirs)[number % 2]
        done = 0
        for _ in range(TRIES):
            seen = store.get(key)
            with suppress(StorageConflict):
                store.put_if_match(key, b"%d" % (int(seen.data) + 1), seen.meta.etag)
                done += 1
            if done == ROUNDS:
                return
        raise _Lacks(f"of {TRIES} replacements by the current ETag {done} were accepted")

    with ThreadPoolExecutor(RACERS) as pool:
        list(pool.map(increment, range(RACERS)))
    counted = int(mine.get(key).data)
    _same(counted, RACERS * ROUNDS, f"of {RACERS * ROUNDS} increments {counted} were kept")


def _upload_in_parts(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """A large object comes in parts, appears whole, and never replaces another."""
    key, piece = f"{at}/x", bytes(range(256)) * (PIECE // 256)
    meta = mine.put_stream(key, iter((piece, piece, b"end")))
    _same(theirs.head(key).size, 2 * PIECE + 3, "another size is told than was sent")
    _same(theirs.get_range(key, PIECE - 1, 2), piece[-1:] + piece[:1], "parts are not in their order")
    _same(theirs.head(key).etag, meta.etag, "reading tells another ETag than writing")
    _refused(lambda: theirs.put_stream(key, iter((piece, piece, b"other"))), "an object was replaced")


def _upload_that_breaks(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """An upload in parts that is given up leaves nothing to be seen."""

    def breaking() -> Iterator[bytes]:
        yield bytes(PIECE)
        yield bytes(PIECE)
        raise _GivenUp

    with suppress(_GivenUp):
        mine.put_stream(f"{at}/x", breaking())
    _same(theirs.list(f"{at}/").objects, (), "half an upload is listed")


class _GivenUp(Exception):
    """Our own, from within a stream."""


def _clock(mine: ObjectStore, theirs: ObjectStore, at: str) -> None:
    """Answers tell the time (Date); objects are dated by the same clock, which is about ours."""
    before = mine.now()
    mine.put_if_absent(f"{at}/x", b"")
    modified = theirs.head(f"{at}/x").modified
    if not before - 3 <= modified <= mine.now() + 3:
        raise _Lacks(f"an object is dated {modified - before:+.0f} seconds from the answers' clock")
    skew = mine.now() - time.time()
    if abs(skew) > MOST_SKEW:
        raise _Lacks(f"its clock is {skew:+.0f} seconds from this machine's: one of them is wrong")


def _refused(write: Callable[[], object], otherwise: str) -> None:
    try:
        write()
    except StorageConflict:
        return
    raise _Lacks(otherwise)


def _same(found: object, wanted: object, otherwise: str) -> None:
    if found != wanted:
        raise _Lacks(otherwise)


def _empty(store: ObjectStore, prefix: str) -> None:
    """Remove what the checks left; that they could not delete was their finding already."""
    after: str | None = ""
    with suppress(Unauthorised):
        while after is not None:
            page = store.list(prefix, after=after)
            for meta in page.objects:
                store.delete(meta.key)
            after = page.next
