"""The demo, as ``make demo`` runs it: it shows what it says, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.server.support import arguments, command, environment, eventually


def processes_of(room: str) -> list[int]:
    """Processes that name a file in ``room`` on their command line."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [number for number in numbers if any(room in word for word in arguments(number))]


def test_the_demo_finds_neighbours_over_http_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        command("demo"),
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(TMPDIR=str(tmp_path)),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    recall = re.search(r"recall@10 against exact search +([0-9.]+)", done.stdout)
    assert recall is not None
    assert float(recall[1]) >= 0.9
    for part in ("rows scanned", "ms median", "curl", "make serve"):
        assert part in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert processes_of(str(tmp_path)) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        command("demo"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(TMPDIR=str(tmp_path)),
        start_new_session=True,
    )
    eventually("its server", lambda: len(processes_of(str(tmp_path))) >= 2, 60)
    os.kill(process.pid, number)
    assert process.wait(30) != 0
    assert list(tmp_path.iterdir()) == []
    eventually("no process", lambda: processes_of(str(tmp_path)) == [])
