"""The real server: its processes, what ends and restarts them, and what it refuses to do."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import vecstore
from tests.server.support import (
    arguments,
    await_ready,
    children,
    command,
    environment,
    eventually,
    running_server,
)
from vecstore.errors import VecstoreError
from vecstore.server.maintenance import NICE

ROWS = np.eye(4, dtype=np.float32)


def maintainers(pid: int) -> list[int]:
    return [child for child in children(pid) if "maintain" in arguments(child)]


def workers(pid: int) -> list[int]:
    return [child for child in children(pid) if "maintain" not in arguments(child)]


def test_one_maintenance_process_compacts_what_is_due_and_ends_with_the_server(tmp_path: Path) -> None:
    with running_server(
        tmp_path / "data",
        "--workers",
        "2",
        VECSTORE_MAINTENANCE_INTERVAL="0.1",
        VECSTORE_GC_INTERVAL="0.1",
        VECSTORE_GC_RETENTION="0",
        VECSTORE_GC_GRACE="0",
    ) as server:
        pid = server.process.pid
        eventually("two workers", lambda: len(workers(pid)) == 2)
        eventually("a maintenance process", lambda: len(maintainers(pid)) == 1)
        (maintainer,) = maintainers(pid)
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        eventually("that gives way", lambda: os.getpriority(os.PRIO_PROCESS, maintainer) == max(NICE, mine))
        assert {os.getpriority(os.PRIO_PROCESS, worker) for worker in workers(pid)} == {mine}
        with vecstore.connect(server.url) as database:
            ns = database.create_namespace("docs", 4, "l2")
            for i in range(9):
                ns.insert(ROWS[:1] * i, ids=[i])
            eventually("a compaction", lambda: ns.stats().parts < 8)
            assert ns.stats().rows == 9
            eventually(
                "a collection",
                lambda: len(list((tmp_path / "data").rglob("*.part"))) == ns.stats().parts,
                60,
            )
        everyone = children(pid)
    assert not [child for child in everyone if Path(f"/proc/{child}").exists() and arguments(child)]


def test_a_maintenance_process_that_dies_is_started_again(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--workers", "1") as server:
        pid = server.process.pid
        eventually("a maintenance process", lambda: len(maintainers(pid)) == 1)
        (first,) = maintainers(pid)
        os.kill(first, signal.SIGKILL)
        eventually("another", lambda: maintainers(pid) not in ([], [first]))


def test_killed_workers_are_replaced_and_what_was_acknowledged_is_there(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--workers", "2", "--no-maintenance") as server:
        assert maintainers(server.process.pid) == []
        with vecstore.connect(server.url) as database:
            database.create_namespace("docs", 4, "l2").insert(ROWS, ids=[1, 2, 3, 4])
        killed = workers(server.process.pid)
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        eventually("new workers", lambda: len(set(workers(server.process.pid)) - set(killed)) == 2)
        await_ready(server)
        with vecstore.connect(server.url) as database:
            assert database.namespace("docs").search(ROWS[2], top_k=1).ids.tolist() == [3]


def test_nothing_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--workers", "1") as server:
        eventually("a maintenance process", lambda: len(maintainers(server.process.pid)) == 1)
        everyone = children(server.process.pid)
        server.process.kill()
        server.process.wait(30)
        eventually("the end of all", lambda: not any(arguments(child) for child in everyone))


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, timeout=60, env=environment(**env), check=False
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_a_host_beyond_loopback_is_refused_in_one_line(tmp_path: Path, host: str) -> None:
    done = run("serve", str(tmp_path), "--host", host)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no authentication" in done.stderr
    assert "--keys-file" in done.stderr
    assert "--allow-remote" in done.stderr


def test_a_remote_host_is_served_when_that_is_allowed(tmp_path: Path) -> None:
    with running_server(tmp_path / "data", "--host", "0.0.0.0", "--allow-remote", "--workers", "1") as server:
        assert list(vecstore.connect(server.url).namespaces()) == []


@pytest.mark.parametrize("url", ["memory://x", "http://127.0.0.1:1"])
def test_a_store_that_processes_cannot_share_is_refused(url: str) -> None:
    done = run("serve", url)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "processes share" in done.stderr


def test_the_deployment_file_serves_with_the_same_settings(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    shown = subprocess.run(
        [*command()[:1], "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "--print-config"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        check=False,
        env=environment(VECSTORE_URL=str(tmp_path), VECSTORE_PORT="8123", VECSTORE_WORKERS="3"),
    )
    assert shown.returncode == 0, shown.stderr
    values = dict(line.split("=", 1) for line in shown.stdout.splitlines() if "=" in line)
    settings = {name.strip(): value.strip() for name, value in values.items()}
    assert settings["bind"] == "['127.0.0.1:8123']"
    assert (settings["workers"], settings["worker_class"]) == ("3", "vecstore.server.worker.Worker")
    refused = subprocess.run(
        [*command()[:1], "-m", "gunicorn", "-c", "deploy/gunicorn.conf.py", "--check-config"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=root,
        check=False,
        env=environment(VECSTORE_HOST="0.0.0.0"),
    )
    assert refused.returncode != 0
    assert "no authentication" in refused.stderr


def test_the_application_can_be_made_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vecstore.server.app import create_app_from_env

    monkeypatch.setenv("VECSTORE_URL", str(tmp_path / "data"))
    assert create_app_from_env().test_client().get("/readyz").status_code == 200
    monkeypatch.setenv("VECSTORE_COLOUR", "red")
    with pytest.raises(VecstoreError, match="VECSTORE_COLOUR"):
        create_app_from_env()


@pytest.mark.parametrize("header", ["SCRIPT_NAME", "PATH_INFO"])
def test_no_header_says_what_the_path_is(tmp_path: Path, header: str) -> None:
    with running_server(tmp_path / "data", "--workers", "1", "--no-maintenance") as server:
        for path, said, status in (
            ("/x/metrics", "/x", 404),
            ("/healthz", "/v1", 200),
            ("/x", "/metrics", 404),
        ):
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
            connection.request("GET", path, headers={header: said})
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Content-Type")) == (status, "application/json")
            answer.read()
            connection.close()
