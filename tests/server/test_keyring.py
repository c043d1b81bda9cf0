"""The keys of a server follow their file, and hold while that is broken."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.server.keys import KeyFile, all_of, identity
from tests.server.test_rates import Clock
from vecstore.errors import InvalidArgument, Unauthenticated
from vecstore.server.keyring import LOOK_SECONDS, Keyring


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    file = KeyFile(tmp_path / "keys.json")
    file.add("first", all_of(""))
    return file


def known(ring: Keyring, key: str) -> bool:
    try:
        found = ring.authenticate(f"Bearer {key}")
    except Unauthenticated:
        return False
    return found.id == identity(key)


def test_a_change_of_the_file_is_seen_at_the_next_look_and_not_before(keys: KeyFile) -> None:
    clock = Clock()
    ring = Keyring(str(keys.path), clock=clock)
    second = keys.add("second", all_of(""))
    assert not known(ring, second)
    clock.now += LOOK_SECONDS
    assert known(ring, second)
    assert known(ring, keys.keys["first"])
    keys.path.write_text('{"version": 1, "keys": []}')
    assert known(ring, second)
    clock.now += LOOK_SECONDS
    assert not known(ring, second)


def test_a_secret_of_kubernetes_is_followed_when_its_link_turns(tmp_path: Path, keys: KeyFile) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = KeyFile(tmp_path / "one" / "keys.json"), KeyFile(tmp_path / "two" / "keys.json")
    first.add("key", all_of(""))
    second.add("key", all_of(""))
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "mounted.json").symlink_to("..data/keys.json")
    clock = Clock()
    ring = Keyring(str(tmp_path / "mounted.json"), clock=clock)
    assert known(ring, first.keys["key"])
    (tmp_path / "next").symlink_to("two")
    os.replace(tmp_path / "next", tmp_path / "..data")
    clock.now += LOOK_SECONDS
    assert known(ring, second.keys["key"])
    assert not known(ring, first.keys["key"])


@pytest.mark.parametrize("how", ["gone", "cut", "not text", "a folder"])
def test_a_broken_file_leaves_the_last_good_keys_and_is_reported_once(
    keys: KeyFile, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    ring = Keyring(str(keys.path), clock=clock)
    good = keys.path.read_bytes()
    if how in ("gone", "a folder"):
        keys.path.unlink()
        if how == "a folder":
            keys.path.mkdir()
    else:
        keys.path.write_bytes(good[:-20] if how == "cut" else b"\xff\xfe")
    for _ in range(3):
        clock.now += LOOK_SECONDS
        assert known(ring, keys.keys["first"])
    errors = [r for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 1
    assert str(keys.path) in errors[0].getMessage()
    if how == "a folder":
        keys.path.rmdir()
    keys.path.write_bytes(good)
    second = keys.add("second", all_of(""))
    clock.now += LOOK_SECONDS
    assert known(ring, second)
    acts = [json.loads(r.getMessage()) for r in caplog.records if r.name == "vecstore.audit"]
    assert [(act["act"], act["outcome"]) for act in acts] == [
        ("reload_keys", "failed"),
        ("reload_keys", "done"),
    ]
    assert json.loads(good)["keys"][0]["digest"] not in caplog.text


def test_a_key_expires_at_its_moment(keys: KeyFile) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    key = keys.add("short", all_of(""), expires_at=end)
    now = [(end - timedelta(milliseconds=1)).timestamp()]
    ring = Keyring(str(keys.path), wall=lambda: now[0])
    assert known(ring, key)
    now[0] = end.timestamp()
    assert not known(ring, key)
    assert known(ring, keys.keys["first"])


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [], "more": 1}',
        '{"version": 1, "keys": [{"id": "x"}]}',
    ],
)
def test_a_server_does_not_start_on_a_file_that_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "keys.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InvalidArgument, match=r"keys\.json") as caught:
        Keyring(str(path))
    assert caught.value.details["field"] == "keys_file"


def test_two_keys_of_one_id_are_refused(keys: KeyFile) -> None:
    content = json.loads(keys.path.read_bytes())
    content["keys"] *= 2
    keys.path.write_text(json.dumps(content))
    with pytest.raises(InvalidArgument, match="two keys"):
        Keyring(str(keys.path))
