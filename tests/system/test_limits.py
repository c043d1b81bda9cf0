"""What an operation costs, and what it may need: imports, requests, dependent trips, permissions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests import core
from tests.server.support import eventually
from vecstore.api import Database, Namespace
from vecstore.errors import Unauthorised
from vecstore.manifest.keys import current_key
from vecstore.storage.base import ObjectStore
from vecstore.storage.faults import WRITES, Call, CountingStore, FaultyStore
from vecstore.storage.local import LocalStore

ROWS = 2_000
SEARCHERS = 8

WITHOUT_EXTRAS = """
import sys
import vecstore
loaded = {name.partition(".")[0] for name in sys.modules} & {"boto3", "botocore", "flask", "gunicorn"}
assert not loaded, loaded
db = vecstore.connect(sys.argv[1], maintenance="off")
ns = db.create_namespace("docs", dim=4)
ns.insert([[1.0, 2.0, 3.0, 4.0]], ids=[7])
assert ns.search([1.0, 2.0, 3.0, 4.0]).ids.tolist() == [7]
loaded = {name.partition(".")[0] for name in sys.modules} & {"boto3", "botocore", "flask", "gunicorn"}
assert not loaded, loaded
"""

SEARCH_ONLY = """
import ctypes, os, sys
# Root may write anywhere; without this capability it is held to the permissions like anybody else.
if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).prctl(24, 1) == 0 and "again" not in sys.argv:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *sys.argv[1:], "again"])
try:
    open(os.path.join(sys.argv[2], "probe"), "w").close()
except PermissionError:
    pass
else:
    sys.exit(77)
import vecstore
ns = vecstore.connect(sys.argv[2]).namespace("docs")
assert len(ns.search([1.0] * 384, top_k=10, include=["vector"])) == 10
ns.get(3)
try:
    ns.delete([3])
except vecstore.VecstoreError as error:
    print(error.code)
"""


def test_import_and_a_local_store_load_neither_boto3_nor_flask(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path / "store")], check=True)


def test_permission_to_read_is_enough_to_search(make_store: Callable[[str], ObjectStore]) -> None:
    inner = make_store("local")
    _fill(core.database(inner))
    refused: list[Call] = []

    def refuse(call: Call) -> None:
        if call.method in WRITES:
            refused.append(call)
            raise Unauthorised(f"may not {call.method} {call.key}", object=call.key)

    ns = core.database(FaultyStore(inner, before=refuse)).namespace("docs")
    query = core.sample().query_vectors[0]
    assert len(ns.search(query, top_k=10)) == 10
    assert len(ns.search(query, top_k=10, epoch=2)) == 10
    assert ns.get(3).id == 3
    assert ns.stats().rows == ROWS
    assert not refused
    with pytest.raises(Unauthorised):
        ns.delete([3])
    with pytest.raises(Unauthorised):
        ns.insert(query[None, :], ids=[1])
    assert ns.stats().rows == ROWS


@pytest.mark.skipif(sys.platform != "linux", reason="gives up a capability of Linux")
def test_a_directory_that_may_only_be_read_can_be_searched(tmp_path: Path) -> None:
    store = tmp_path / "store"
    _fill(core.database(LocalStore(store)))
    folders = [store, *(path for path in store.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SEARCH_ONLY, SEARCH_ONLY, str(store)],
            check=False,
            capture_output=True,
            text=True,
        )
    finally:
        for folder in folders:
            folder.chmod(0o755)
    if done.returncode == 77:
        pytest.skip("this system lets us write whatever the permissions are")
    assert (done.returncode, done.stdout) == (0, "permission_denied\n"), done.stderr


def test_a_warm_strong_search_on_s3_costs_one_conditional_get(
    make_store: Callable[[str], ObjectStore],
) -> None:
    store = CountingStore(make_store("s3"))
    ns = _fill(core.database(store))
    queries = core.sample().query_vectors
    ns.search(queries[0], probe_fraction=1.0)
    for query in queries[:3]:
        store.reset()
        assert len(ns.search(query)) == 10
        assert _requests(store) == [("get_if_changed", current_key("docs"))]
    store.reset()
    assert len(ns.search_batch(queries[:50]).ids) == 50
    assert _requests(store) == [("get_if_changed", current_key("docs"))]
    store.reset()
    ns.search(queries[0], consistency="eventual", max_staleness=3600.0)
    assert _requests(store) == []


def test_searches_that_wait_share_one_conditional_get(make_store: Callable[[str], ObjectStore]) -> None:
    """All that arrive while a check is under way share the next; that one began before they came."""
    counting = CountingStore(make_store("s3"))
    under_way, go_on = threading.Event(), threading.Event()

    def hold(call: Call) -> None:
        if call.method == "get_if_changed" and not under_way.is_set():
            under_way.set()
            assert go_on.wait(60)

    faulty = FaultyStore(counting)
    db = core.engine(faulty)
    ns = _fill(Database(db))
    query = core.sample().query_vectors[0]
    ns.search(query, probe_fraction=1.0)
    counting.reset()
    faulty.before = hold
    snapshots = db.namespace("docs").snapshots
    with ThreadPoolExecutor(SEARCHERS + 1) as pool:
        first = pool.submit(ns.search, query)
        assert under_way.wait(60)
        others = [pool.submit(ns.search, query) for _ in range(SEARCHERS)]
        eventually("all others wait", lambda: snapshots._waiting == SEARCHERS)
        go_on.set()
        assert all(len(done.result()) == 10 for done in [first, *others])
    assert _requests(counting) == [("get_if_changed", current_key("docs"))] * 2


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_an_insert_is_two_dependent_trips(make_store: Callable[[str], ObjectStore], kind: str) -> None:
    """The part, the copy of the past epoch and a look at the current one side by side, then the switch."""
    # A part that is not mapped is asked for its ids meanwhile.
    beside = ["get_if_changed", "put_if_absent", "put_stream", *(["get_ranges"] if kind == "s3" else [])]
    side_by_side = threading.Barrier(len(beside))

    def meet(call: Call) -> None:
        if call.method in beside:
            side_by_side.wait(30)  # breaks, and fails the insert, if one waits for another to end

    faulty = FaultyStore(make_store(kind))
    store = CountingStore(faulty)
    ns = _fill(core.database(store))
    faulty.before = meet
    store.reset()
    ns.insert(core.sample().vectors[ROWS : ROWS + 10], ids=np.arange(ROWS, ROWS + 10, dtype=np.uint64))
    methods = [method for method, _ in _requests(store)]
    assert sorted(methods[: len(beside)]) == sorted(beside)
    assert methods[len(beside) :] == ["put_if_match"]


def _fill(db: Database) -> Namespace:
    """A namespace of one coded part."""
    ns = db.create_namespace("docs", dim=384)
    ns.insert(core.sample().vectors[:ROWS], ids=np.arange(ROWS, dtype=np.uint64))
    return ns


def _requests(store: CountingStore) -> list[tuple[str, str]]:
    """What went over the wire."""
    return [(call.method, call.key) for call in store.calls if call.method not in ("now", "map")]
