"""History as its users have it, embedded and over HTTP to a real server: the same calls, the same errors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

import vecstore
from tests.server.support import running_server
from vecstore.api import Database, Namespace
from vecstore.errors import (
    InvalidArgument,
    NamespaceExists,
    PreconditionFailed,
    RowNotFound,
    SnapshotExpired,
    TagExists,
    TagNotFound,
)
from vecstore.invariants import check_namespace
from vecstore.storage.local import LocalStore

DIM = 4
ROWS = np.random.default_rng(11).standard_normal((60, DIM)).astype(np.float32)
HOUR = 3600.0


@dataclass(frozen=True)
class Place:
    """A directory of namespaces, through a client or embedded."""

    database: Database
    folder: Path
    url: str | None

    def collect_all(self) -> None:
        """Collect as if all that is there had been written two hours ago."""
        with vecstore.connect(str(self.folder), maintenance="off") as database:
            for name in list(database.backend.names()):
                then = time.time() - 2 * HOUR
                for path in self.folder.rglob("*"):
                    if path.is_file():
                        os.utime(path, (then, then))
                database.backend.collect(name, retention=HOUR, grace=HOUR, dry_run=False)

    def check(self, *names: str) -> None:
        store = LocalStore(self.folder)
        for name in names:
            assert check_namespace(store, name) == []
        store.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("store") / "data"
    with (
        running_server(folder, "--workers", "1", "--no-maintenance") as server,
        vecstore.connect(server.url) as database,
    ):
        yield Place(database, folder, server.url)


@pytest.fixture(params=["embedded", "http"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "http":
        found: Place = request.getfixturevalue("served")
        yield found
        for info in list(found.database.namespaces()):
            found.database.delete_namespace(info.name)
        return
    with vecstore.connect(str(tmp_path / "data"), maintenance="off") as database:
        yield Place(database, tmp_path / "data", None)


@pytest.fixture
def docs(place: Place) -> Namespace:
    """Rows 0 to 9 at the first of three epochs after the creation, 10 to 19 at the next, then 5 is gone."""
    ns = place.database.create_namespace("docs", DIM, "l2")
    ns.insert(ROWS[:10], ids=range(10))
    ns.insert(ROWS[10:20], ids=range(10, 20))
    ns.delete([5])
    return ns


def ids(ns: Namespace, epoch: int | None = None) -> set[int]:
    hits = ns.search(ROWS[5], top_k=100, epoch=epoch)
    assert epoch in (None, hits.epoch)
    return set(hits.ids.tolist())


# -- reading a past epoch -------------------------------------------------------------------


def test_any_epoch_of_the_window_is_searched_and_read_as_it_was(docs: Namespace) -> None:
    last = docs.stats().epoch
    first, second = last - 2, last - 1
    assert ids(docs, last - 3) == set()
    assert ids(docs, first) == set(range(10))
    assert ids(docs, second) == set(range(20))
    assert ids(docs) == ids(docs, last) == set(range(20)) - {5}
    batch = docs.search_batch(ROWS[5:7], top_k=1, epoch=first)
    assert (batch.epoch, batch.ids.ravel().tolist()) == (first, [5, 6])
    assert docs.measure_recall(ROWS[:2], epoch=second).rows == 20
    row = docs.get(5, epoch=second)
    assert (row.id, row.epoch) == (5, second)
    np.testing.assert_array_equal(row.vector, ROWS[5])
    with pytest.raises(RowNotFound):
        docs.get(5)
    with pytest.raises(RowNotFound):
        docs.get(15, epoch=first)
    assert [len(docs.manifest(epoch)["parts"]) for epoch in (first, second)] == [1, 2]
    assert docs.manifest(first)["epoch"] == first


def every_read(ns: Namespace, epoch: Any) -> list[Callable[[], object]]:
    return [
        lambda: ns.search(ROWS[0], epoch=epoch),
        lambda: ns.search_batch(ROWS[:2], epoch=epoch),
        lambda: ns.measure_recall(ROWS[:2], epoch=epoch),
        lambda: ns.get(1, epoch=epoch),
        lambda: ns.manifest(epoch),
    ]


def test_an_epoch_that_has_left_the_window_has_expired_for_every_read(place: Place, docs: Namespace) -> None:
    past = docs.stats().epoch - 1
    assert ids(docs, past) == set(range(20))
    docs.compact()
    place.collect_all()
    for read in every_read(docs, past):
        with pytest.raises(SnapshotExpired) as caught:
            read()
        assert caught.value.details["epoch"] == past
    if place.url is not None:
        answer = urllib3.request("GET", f"{place.url}/v1/namespaces/docs/rows/1?epoch={past}", retries=False)
        assert (answer.status, answer.json()["code"]) == (410, "snapshot_expired")
    assert ids(docs) == set(range(20)) - {5}
    place.check("docs")


@pytest.mark.parametrize("epoch", [0, -1, 1.5, True, 10**9])
def test_what_is_no_epoch_yet_is_refused_by_name(docs: Namespace, epoch: Any) -> None:
    for read in every_read(docs, epoch):
        with pytest.raises(InvalidArgument) as caught:
            read()
        assert caught.value.details["field"] == "epoch"


# -- restore --------------------------------------------------------------------------------


def token(ns: Namespace) -> tuple[str, int]:
    info = ns.stats()
    return info.incarnation, info.epoch


def test_a_restore_is_one_commit_upon_the_epoch_that_was_seen(place: Place, docs: Namespace) -> None:
    seen = token(docs)
    docs.insert(ROWS[30:31], ids=[30])
    with pytest.raises(PreconditionFailed):
        docs.restore(seen[1] - 1, if_match=seen)
    info = docs.restore(seen[1] - 1, if_match=token(docs))
    assert (info.epoch, info.rows) == (seen[1] + 2, 20)
    assert ids(docs) == set(range(20))
    assert ids(docs, seen[1] + 1) == {*range(20), 30} - {5}
    place.check("docs")


def test_a_restore_names_what_it_lacks(place: Place, docs: Namespace) -> None:
    past = docs.stats().epoch - 1
    for refused, field in (
        (lambda: docs.restore(past, if_match=None), "if_match"),  # type: ignore[arg-type]
        (lambda: docs.restore(None, if_match=token(docs)), "epoch"),  # type: ignore[arg-type]
        (lambda: docs.restore(10**9, if_match=token(docs)), "epoch"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            refused()
        assert caught.value.details["field"] == field
    docs.compact()
    place.collect_all()
    with pytest.raises(SnapshotExpired):
        docs.restore(past, if_match=token(docs))
    if place.url is not None:
        url = f"{place.url}/v1/namespaces/docs/restore"
        for headers in ({}, {"If-Match": "*"}):
            answer = urllib3.request("POST", url, json={"epoch": past}, headers=headers, retries=False)
            assert (answer.status, answer.json()["details"]["field"]) == (400, "If-Match")


# -- tags -----------------------------------------------------------------------------------


def test_a_tag_holds_an_epoch_beyond_the_window(place: Place, docs: Namespace) -> None:
    past = docs.stats().epoch - 1
    made = docs.tag("before", epoch=past)
    assert (made.name, made.epoch) == ("before", past)
    assert docs.tag("before", epoch=past) == made
    now = docs.tag("an-hour-ago")
    assert now.epoch == past + 2  # the first tag was a commit
    assert docs.tags() == [now, made]
    docs.compact()
    place.collect_all()
    assert ids(docs, past) == set(range(20))
    assert docs.get(5, epoch=past).epoch == past
    place.check("docs")
    docs.restore(past, if_match=token(docs))
    assert ids(docs) == set(range(20))
    docs.untag("before")
    docs.compact()
    place.collect_all()
    with pytest.raises(SnapshotExpired):
        docs.get(5, epoch=past)
    assert docs.tags() == [now]
    assert ids(docs, now.epoch) == set(range(20)) - {5}
    place.check("docs")


def test_a_tag_names_what_is_wrong_with_it(docs: Namespace) -> None:
    last = docs.stats().epoch
    docs.tag("v1", epoch=last - 1)
    for refused, error in (
        (lambda: docs.tag("v1", epoch=last), TagExists),
        (lambda: docs.untag("v2"), TagNotFound),
        (lambda: docs.tag("a/b"), InvalidArgument),
        (lambda: docs.tag(""), InvalidArgument),
        (lambda: docs.untag("../x"), InvalidArgument),
        (lambda: docs.tag("v2", epoch=0), InvalidArgument),
        (lambda: docs.tag("v2", epoch=10**9), InvalidArgument),
    ):
        with pytest.raises(error):
            refused()
    assert [tag.name for tag in docs.tags()] == ["v1"]


# -- branches -------------------------------------------------------------------------------


def test_a_branch_goes_its_own_way_and_outlives_its_source(place: Place, docs: Namespace) -> None:
    past = docs.stats().epoch - 1
    old = docs.branch("old", epoch=past)
    new = docs.branch("new")
    assert ids(old) == set(range(20))
    assert ids(new) == set(range(20)) - {5}
    with pytest.raises(NamespaceExists):
        docs.branch("old")
    new.insert(ROWS[40:42], ids=[40, 41])
    docs.delete(list(range(10)))
    place.database.delete_namespace("docs")
    for _ in range(3):
        place.collect_all()
    assert ids(old) == set(range(20))
    assert ids(new) == {*range(20), 40, 41} - {5}
    grandchild = new.branch("newer")
    new.compact()
    place.database.delete_namespace("new")
    for _ in range(3):
        place.collect_all()
    assert ids(grandchild) == {*range(20), 40, 41} - {5}
    np.testing.assert_array_equal(grandchild.get(12).vector, ROWS[12])
    place.check("docs", "old", "new", "newer")
