"""Every version reads what each earlier one wrote, answers the same, and goes on from there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from crc32c import crc32c

from tests.core import RangeStore, database
from tests.golden.make import DIM, answers, load, versions
from vecstore.config import Config
from vecstore.errors import UnsupportedFormat
from vecstore.maintenance.copying import copy_store
from vecstore.maintenance.verify import verify
from vecstore.manifest import history
from vecstore.manifest.keys import current_key, delete_key, history_key, part_key
from vecstore.server.app import create_app
from vecstore.storage.memory import MemoryStore

EXACT_WITHIN = 1e-5  # of sums of float32 in another order


def told(store: MemoryStore) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(answers(database(store)), default=str))
    return found


def assert_same(found: Any, wanted: Any, at: str = "") -> None:
    """Equal, but for distances that differ by rounding."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), at
        for name, value in wanted.items():
            assert_same(found[name], value, f"{at}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), at
        for number, (one, other) in enumerate(zip(found, wanted, strict=True)):
            assert_same(one, other, f"{at}[{number}]")
    elif isinstance(wanted, float):
        np.testing.assert_allclose(found, wanted, rtol=EXACT_WITHIN, atol=EXACT_WITHIN, err_msg=at)
    else:
        assert found == wanted, at


def objects(store: MemoryStore) -> dict[str, bytes]:
    return {meta.key: store.get(meta.key).data for meta in store.list("").objects}


@pytest.fixture(params=versions())
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", [MemoryStore, RangeStore])
def test_a_golden_store_is_sound_and_answers_as_it_did(version: str, kind: type[MemoryStore]) -> None:
    store = kind()
    wanted = load(version, store)
    assert verify(store).problems == ()
    assert_same(told(store), wanted)


def test_a_golden_store_is_written_to_compacted_collected_and_still_answers(version: str) -> None:
    store = MemoryStore()
    wanted = load(version, store)
    db = database(store)
    for info in list(db.namespaces()):
        ns = db.namespace(info.name)
        ids = {"string": ["new"], "u64": [9_999], None: [9_999]}[info.id_kind]
        assigned = info.name == "assigned"
        ns.insert(np.full((1, DIM), 1e3, dtype=np.float32), None if assigned else ids)
        assert ns.stats().rows == info.rows + 1
        if not assigned:
            assert ns.get(ids[0]).id == ids[0]
        last = [int(key) for key in wanted[info.name]["now"]["rows"]] if assigned else []
        ns.delete([max(last) + 1] if assigned else ids)
        ns.compact(everything=True)
        db.backend.collect(info.name, retention=0.0, grace=0.0, dry_run=False)  # type: ignore[attr-defined]
    assert verify(store).problems == ()
    found = told(store)
    for name in ("empty", "branch"):  # the first id fixes the kind; a branch has no tags
        wanted[name]["id_kind"] = found[name]["id_kind"]
    wanted["assigned"]["now"]["nearest"] = found["assigned"]["now"]["nearest"]  # it keeps no vectors as given
    assert_same(found, wanted)


def test_a_copy_of_a_golden_store_answers_as_it_did(version: str) -> None:
    store, copy = MemoryStore(), MemoryStore()
    wanted = load(version, store)
    assert copy_store(store, copy).failed == ()
    assert verify(copy).problems == ()
    assert_same(told(copy), wanted)


# -- newer formats -------------------------------------------------------------------------


def newer_manifest(data: bytes) -> bytes:
    body = msgspec.json.decode(data)["manifest"]
    body["format"] += 1
    body["something"] = {"new": True}
    inner = msgspec.json.encode(body)
    return msgspec.json.encode({"crc32c": f"{crc32c(inner):08x}", "manifest": msgspec.Raw(inner)})


def newer_part(data: bytes) -> bytes:
    """Header and tail say format 1, and the tail's checksums hold."""
    raw = bytearray(data)
    raw[8:12] = (int.from_bytes(raw[8:12], "little") + 1).to_bytes(4, "little")
    raw[-44:-40] = crc32c(bytes(raw[:64])).to_bytes(4, "little")
    raw[-40:-36] = raw[8:12]
    return bytes(raw)


def newer_deletes(data: bytes) -> bytes:
    raw = bytearray(data)
    raw[8:12] = (int.from_bytes(raw[8:12], "little") + 1).to_bytes(4, "little")
    return bytes(raw)


def _key(store: MemoryStore, what: str) -> str:
    current = history.read_current(store, "full").manifest
    part = next(part for part in current.parts if part.tombstone is not None)
    assert part.tombstone is not None
    return {
        "current": current_key("full"),
        "history": history_key("full", current.epoch - 1),
        "part": part_key(part.owner, part.id),
        "deletes": delete_key(part.tombstone.owner, part.tombstone.delete_id),
    }[what]


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "current": newer_manifest,
    "history": newer_manifest,
    "part": newer_part,
    "deletes": newer_deletes,
}


@pytest.mark.parametrize("what", KINDS)
def test_an_object_of_a_newer_format_is_named_by_verification_and_never_copied_over(what: str) -> None:
    store, copy = MemoryStore(), MemoryStore()
    load(versions()[-1], store)
    key = _key(store, what)
    data = KINDS[what](store.get(key).data)
    store.delete(key)
    store.put_if_absent(key, data)
    before = objects(store)
    problems = [problem for problem in verify(store).problems if problem.object == key]
    assert "format 1; this build reads 0" in problems[0].message
    found = {one.name: one for one in copy_store(store, copy, ["full"]).namespaces}["full"]
    if what in ("current", "part"):
        assert found.code == UnsupportedFormat.code
        assert "format 1; this build reads 0" in str(found.message)
    assert objects(store) == before


@pytest.mark.parametrize("what", ["current", "history"])
def test_a_manifest_of_a_newer_format_is_refused_by_name_and_nothing_is_changed(what: str) -> None:
    """It is the gate: whoever writes parts of a newer format writes manifests of one."""
    store = MemoryStore()
    load(versions()[-1], store)
    epoch = history.read_current(store, "full").manifest.epoch - 1 if what == "history" else None
    key = _key(store, what)
    data = newer_manifest(store.get(key).data)
    store.delete(key)
    store.put_if_absent(key, data)
    before = objects(store)
    db = database(store)
    with pytest.raises(UnsupportedFormat, match="format 1; this build reads 0") as refused:
        db.namespace("full").search([0.0] * DIM, epoch=epoch)
    assert refused.value.details == {"object": key, "section": "manifest", "found": 1, "supported": 0}
    http = create_app(db, Config()).test_client()
    body = {"vector": [0.0] * DIM, "epoch": epoch}
    answer = http.post("/v1/namespaces/full/search", json={k: v for k, v in body.items() if v is not None})
    assert (answer.status_code, answer.json["code"]) == (500, "unsupported_format")
    assert (answer.json["details"]["found"], answer.json["details"]["supported"]) == (1, 0)
    if what == "current":
        with pytest.raises(UnsupportedFormat):
            database(store).namespace("full")
        for method, path, sent in (
            ("POST", "deletes", {"ids": [1]}),
            ("POST", "parts", {"ids": [1], "vectors": [[0.0] * DIM]}),
            ("POST", "compact", {}),
            ("DELETE", "", None),
        ):
            url = f"/v1/namespaces/full/{path}".rstrip("/")
            answer = http.open(url, method=method, json=sent)
            assert (answer.status_code, answer.json["code"]) == (500, "unsupported_format"), url
    assert objects(store) == before


def test_the_golden_stores_stay_small(version: str) -> None:
    from tests.golden.make import STORES

    assert sum((STORES / f"{version}.{kind}").stat().st_size for kind in ("zip", "json")) <= 200_000
