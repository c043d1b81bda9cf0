"""The key file and the commands that change it."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vecstore.cli import main
from vecstore.errors import InvalidArgument
from vecstore.keys import Grant, digest, edit_keys, new_key, read_keys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def run(path: Path, *words: str, **more: Any) -> Result:
    return CliRunner().invoke(main, ["keys", *words, "--file", str(path)], **more)


def made(path: Path, *words: str) -> tuple[str, str]:
    """A new key, and its id."""
    done = run(path, "create", *words)
    assert done.exit_code == 0, done.output
    match = re.fullmatch(r"vs_([0-9a-f]{12})_[0-9a-f]{64}", done.stdout.strip())
    assert match is not None
    return match[0], match[1]


# -- the file ------------------------------------------------------------------------------


def test_a_key_is_random_and_the_file_knows_its_digest_alone(path: Path) -> None:
    made_here = [new_key((Grant(("read",)),)) for _ in range(100)]
    assert (
        len({key.rsplit("_", 1)[1] for key, _ in made_here})
        == len({known.id for _, known in made_here})
        == 100
    )
    edit_keys(path, lambda before: tuple(known for _, known in made_here))
    text = path.read_text()
    for key, known in made_here:
        assert key.rsplit("_", 1)[1] not in text
        assert known.digest == digest(key)
    assert read_keys(path) == tuple(known for _, known in made_here)


def test_a_new_file_is_its_owners_alone_and_an_old_one_keeps_its_mode(path: Path) -> None:
    made(path, "--grant", "read:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    made(path, "--grant", "read:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


def test_a_file_behind_a_link_is_changed_and_the_link_stays(tmp_path: Path, path: Path) -> None:
    (tmp_path / "real").mkdir()
    path.symlink_to("real/keys.json")
    _, identity = made(path, "--grant", "read:")
    assert path.is_symlink()
    assert [key.id for key in read_keys(tmp_path / "real" / "keys.json")] == [identity]


def test_edits_at_the_same_time_are_all_kept_and_readers_see_whole_files(path: Path) -> None:
    edit_keys(path, lambda before: before)
    seen: list[int] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.append(len(read_keys(path)))

    def write() -> None:
        for _ in range(5):
            edit_keys(path, lambda before: (*before, new_key((Grant(("read",)),))[1]))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    reader.join()
    assert len(read_keys(path)) == 20
    assert seen == sorted(seen)


def test_an_edit_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path, "--grant", "read:")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InvalidArgument, match="No space left"):
        edit_keys(path, lambda keys: ())
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "X" * 12},
        {"id": "0" * 12 + "\n"},
        {"digest": "0" * 63},
        {"digest": "G" * 64},
        {"grants": []},
        {"grants": [{"scopes": [], "prefix": ""}]},
        {"grants": [{"scopes": ["all"], "prefix": ""}]},
        {"grants": [{"scopes": ["read"], "prefix": "a/b"}]},
        {"grants": [{"scopes": ["read"], "prefix": "a\n"}]},
        {"grants": [{"scopes": ["read"], "prefix": "*"}]},
        {"expires_at": "2030-01-01T00:00:00"},
        {"expires_at": 0},
        {"rate": -1},
        {"burst": 0},
        {"colour": "red"},
    ],
    ids=str,
)
def test_an_entry_that_is_not_understood_is_refused(path: Path, change: dict[str, Any]) -> None:
    made(path, "--grant", "read:")
    content = json.loads(path.read_bytes())
    content["keys"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InvalidArgument, match="no key file"):
        read_keys(path)


# -- the commands --------------------------------------------------------------------------


def test_a_key_is_printed_once_and_listed_without_its_secret(path: Path) -> None:
    key, identity = made(
        path, "--grant", "read,write:acme-", "--grant", "admin:", "--name", "of acme", "--rate", "5"
    )
    shown = run(path, "list")
    assert shown.exit_code == 0
    assert shown.output == f"{identity}\tread,write:acme- admin:\tnever expires\t5 requests/s\tof acme\n"
    (told,) = json.loads(run(path, "list", "--json").output)
    assert told["grants"] == [
        {"scopes": ["read", "write"], "prefix": "acme-"},
        {"scopes": ["admin"], "prefix": ""},
    ]
    assert "digest" not in told
    assert key.rsplit("_", 1)[1] not in shown.output + json.dumps(told)


@pytest.mark.parametrize(
    ("given", "until"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("2w", timedelta(weeks=2)),
        ("2031-01-01", datetime(2031, 1, 1, tzinfo=UTC)),
        ("2031-01-01T12:00:00+01:00", datetime(2031, 1, 1, 11, tzinfo=UTC)),
    ],
)
def test_a_key_expires_after_a_time_or_at_a_moment(path: Path, given: str, until: Any) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    made(path, "--grant", "read:", "--expires", given)
    (known,) = read_keys(path)
    assert known.expires_at is not None
    if isinstance(until, timedelta):
        assert before + until <= known.expires_at <= datetime.now(UTC) + until
    else:
        assert known.expires_at == until


@pytest.mark.parametrize("given", ["0d", "2020-01-01"])
def test_a_key_that_would_be_over_at_once_is_not_made(path: Path, given: str) -> None:
    _, old = made(path, "--grant", "read:")
    before = path.read_bytes()
    for refused in (
        run(path, "create", "--grant", "read:", "--expires", given),
        run(path, "rotate", old, "--expires", given),
    ):
        assert refused.exit_code == 2
        assert f"--expires {given}" in refused.output
    assert path.read_bytes() == before


def test_a_rotated_key_has_a_successor_of_the_same_grants_and_an_end(path: Path) -> None:
    _, old = made(path, "--grant", "read:acme-", "--name", "reader", "--rate", "3", "--burst", "9")
    made(path, "--grant", "write:")
    done = run(path, "rotate", old, "--overlap", "1h")
    first, other, new = read_keys(path)
    assert done.exit_code == 0
    assert digest(done.stdout.strip()) == new.digest
    assert (new.grants, new.name, new.rate, new.burst) == (first.grants, "reader", 3.0, 9)
    assert (first.id, new.expires_at, other.expires_at) == (old, None, None)
    assert first.expires_at is not None
    assert timedelta(minutes=59) < first.expires_at - datetime.now(UTC) <= timedelta(hours=1)
    assert run(path, "rotate", old, "--overlap", "1w").exit_code == 0
    assert read_keys(path)[0].expires_at == first.expires_at  # what was to end sooner still does
    assert "expired" not in run(path, "list").output
    assert run(path, "rotate", new.id, "--overlap", "0s").exit_code == 0
    assert run(path, "list").output.count("expired") == 1


def test_a_successor_lives_as_long_as_its_key_was_to(path: Path) -> None:
    _, old = made(path, "--grant", "read:", "--expires", "5d")
    assert run(path, "rotate", old).exit_code == 0
    assert run(path, "rotate", old, "--expires", "2d").exit_code == 0
    first, alike, shorter = read_keys(path)
    assert first.expires_at is not None
    assert alike.expires_at is not None
    assert shorter.expires_at is not None
    assert timedelta(0) <= alike.expires_at - (alike.created_at + timedelta(days=5)) <= timedelta(seconds=1)
    assert (
        timedelta(0) <= shorter.expires_at - (shorter.created_at + timedelta(days=2)) <= timedelta(seconds=1)
    )


def test_a_revoked_key_is_gone(path: Path) -> None:
    _, first = made(path, "--grant", "read:")
    _, second = made(path, "--grant", "read:")
    assert run(path, "revoke", first).output == f"{first} revoked\n"
    assert [key.id for key in read_keys(path)] == [second]
    for command in ("revoke", "rotate"):
        done = run(path, command, first)
        assert (done.exit_code, done.stderr) == (1, f"Error: no key has the id '{first}'\n")


@pytest.mark.parametrize("command", ["revoke", "rotate"])
def test_a_key_that_is_given_for_its_id_is_not_printed_back(path: Path, command: str) -> None:
    key, identity = made(path, "--grant", "read:")
    done = run(path, command, key)
    assert (done.exit_code, done.stderr) == (
        1,
        f"Error: a key is named by its id alone, which is {identity}\n",
    )
    done = run(path, command, key[1:])
    assert done.exit_code == 1
    assert "12 hexadecimal digits" in done.stderr
    assert key[-64:] not in done.output
    assert [one.id for one in read_keys(path)] == [identity]


@pytest.mark.parametrize("prefix", ["x y", "a/b", "é", "-a", "x" * 129])
def test_a_prefix_that_no_namespace_has_is_named(path: Path, prefix: str) -> None:
    done = run(path, "create", "--grant", f"read:{prefix}")
    assert (done.exit_code, done.stderr.startswith(f"Error: --grant read:{prefix}: a prefix has")) == (
        1,
        True,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("create",),
        ("create", "--grant", "read"),
        ("create", "--grant", ":acme-"),
        ("create", "--grant", "everything:"),
        ("create", "--grant", "read:", "--expires", "soon"),
        ("create", "--grant", "read:", "--expires", "-1d"),
    ],
)
def test_wrong_usage_is_status_2_and_makes_no_file(path: Path, words: tuple[str, ...]) -> None:
    assert run(path, *words).exit_code == 2
    assert not path.exists()


@pytest.mark.parametrize(
    "more",
    [
        ("--grant", "read:a/b"),
        *(("--grant", "read:", "--rate", rate) for rate in ("-1", "nan", "inf", "-inf", "1000001")),
        *(("--grant", "read:", "--burst", burst) for burst in ("-1", "0", "1000001")),
        ("--grant", "read:", "--name", "n" * 201),
    ],
)
def test_values_out_of_bounds_are_refused_and_make_no_file(path: Path, more: tuple[str, ...]) -> None:
    done = run(path, "create", *more)
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert more[-2].removeprefix("--") in done.stderr
    assert path.name not in done.stderr
    assert not path.exists()


def test_a_rate_of_0_is_no_limit(path: Path) -> None:
    assert run(path, "create", "--grant", "read:", "--rate", "0").exit_code == 0
    assert [key.rate for key in read_keys(path)] == [0.0]


def test_the_file_is_that_of_the_setting_unless_another_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    runner = CliRunner()
    assert runner.invoke(main, ["keys", "list"]).exit_code == 2
    monkeypatch.setenv("VECSTORE_KEYS_FILE", str(path))
    assert runner.invoke(main, ["keys", "create", "--grant", "read:"]).exit_code == 0
    assert len(read_keys(path)) == 1
    assert run(path.parent / "none.json", "list").exit_code == 1
    assert run(path.parent / "none" / "keys.json", "create", "--grant", "read:").exit_code == 1
