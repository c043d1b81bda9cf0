"""Backup and restore by real processes and stores: a kill; a directory to SeaweedFS and back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import vecstore
from tests.conftest import Bucket
from tests.maintenance.test_copying import DIM, ROWS, answers, filled
from vecstore.cli import main
from vecstore.maintenance.verify import verify
from vecstore.storage.local import LocalStore
from vecstore.storage.open import open_store


def sound(url: str) -> None:
    assert verify(open_store(url)).problems == ()


def test_a_copy_that_is_killed_leaves_the_target_sound_and_a_repetition_completes(tmp_path: Path) -> None:
    live, backup = str(tmp_path / "live"), str(tmp_path / "backup")
    with vecstore.connect(live, maintenance="off") as db:
        for name in "ab":
            ns = db.create_namespace(name, DIM, "l2")
            for batch in range(30):
                ns.insert(ROWS[batch * 10 : batch * 10 + 10], range(batch * 10, batch * 10 + 10))
            ns.delete(range(0, 300, 5))
            ns.tag("full")
        wanted = answers(db)
    killed = 0
    for goal in (1, 25, 45):
        process = subprocess.Popen(
            [sys.executable, "-m", "vecstore.cli", "copy", live, backup, "--quiet"], stdout=subprocess.DEVNULL
        )
        while process.poll() is None and len(list(Path(backup).glob("namespaces/*/parts/*.part"))) < goal:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        killed += process.wait(timeout=60) == -signal.SIGKILL
        sound(backup)
        with vecstore.connect(backup, maintenance="off") as db:
            assert answers(db).items() <= wanted.items()  # each whole or absent
    assert killed
    done = vecstore.copy_store(live, backup)
    assert done.failed == ()
    sound(backup)
    with vecstore.connect(backup, maintenance="off") as db:
        assert answers(db) == wanted


def test_a_directory_is_backed_up_to_seaweedfs_and_comes_back(
    tmp_path: Path, seaweed_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": seaweed_bucket.endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    live, backup = tmp_path / "live", f"s3://{seaweed_bucket.name}/backup-{tmp_path.name}"
    with filled(LocalStore(live)) as db:
        wanted = answers(db)
    names = ["docs", "branch"]
    assert vecstore.copy_store(str(live), backup, names).failed == ()
    sound(backup)
    shutil.rmtree(live)
    done = vecstore.copy_store(backup, str(live), names)
    assert (done.failed, len(done.namespaces)) == ((), 2)
    sound(str(live))
    with vecstore.connect(str(live), maintenance="off") as restored:
        assert answers(restored) == {k: v for k, v in wanted.items() if k.startswith(tuple(names))}
        restored.namespace("docs").delete([200])
        (again,) = vecstore.copy_store(str(live), backup, ["docs"]).namespaces
        assert (again.code, again.copied, again.changed) == (None, 0, True)


def test_a_process_that_outlived_the_loss_of_its_store_serves_what_was_restored(tmp_path: Path) -> None:
    live, backup = tmp_path / "live", str(tmp_path / "backup")
    with vecstore.connect(str(live), maintenance="off") as db:
        ns = db.create_namespace("docs", 4, "l2")
        ns.insert(np.eye(4, dtype=np.float32), range(4))
        vecstore.copy_store(db, backup)
        ns.insert(np.eye(4, dtype=np.float32), range(4, 8))
        before = ns.stats()
        shutil.rmtree(live)
        vecstore.copy_store(backup, str(live))
        after = ns.stats()
        assert (after.rows, before.rows) == (4, 8)
        assert after.incarnation != before.incarnation
        assert list(ns.search([1, 0, 0, 0], top_k=1).ids) == [0]
        ns.insert(np.eye(4, dtype=np.float32), range(4, 8))
        assert ns.stats().rows == 8


def test_the_command_tells_of_each_namespace_and_fails_if_one_was_not_copied(tmp_path: Path) -> None:
    live, backup = str(tmp_path / "live"), str(tmp_path / "backup")
    with vecstore.connect(live, maintenance="off") as db:
        for name in ("a", "b"):
            db.create_namespace(name, 4, "l2").insert(np.eye(4, dtype=np.float32), range(4))

    def copy(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["copy", *words, "--quiet"])
        return done.exit_code, done.output

    assert copy(live, backup, "--dry-run")[1].count("1 parts") == 2
    assert copy(live, backup, "a")[1].startswith("a\tcopied\tepoch 2")
    status, output = copy(live, backup, "--json")
    told = {one["name"]: one for one in json.loads(output)["namespaces"]}
    assert (status, told["a"]["changed"], told["b"]["changed"]) == (0, False, True)
    with vecstore.connect(backup, maintenance="off") as there:
        there.namespace("a").delete([1])
    status, output = copy(live, backup)
    assert (status, "a\tNOT COPIED\tdiverged" in output, "b\tup to date" in output) == (1, True, True)
    assert copy(live, "http://127.0.0.1:1")[0] == 1
    assert "profile" in copy(live, backup, "--source-profile", "x")[1]
