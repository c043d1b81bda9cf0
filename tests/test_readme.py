"""The README is executed: its Python as it stands, its curl against a real server."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def run(command: list[str], cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_minute_of_python_runs(tmp_path: Path) -> None:
    (script,) = blocks("python")
    lines = run([sys.executable, "-c", script], tmp_path).splitlines()
    assert re.match(r"\[ *42 ", lines[0]), "a row's nearest neighbour is itself"
    assert lines[-1] == str(10_000 - 3)


def test_the_minute_of_http_runs(tmp_path: Path) -> None:
    script = blocks("sh")[1]
    assert script.startswith("vecstore serve")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = run(["bash", "-ec", "set -m\n" + script.replace("8080", str(port)) + "wait"], tmp_path)
    assert '"id":"a"' in output.replace(" ", "")


@pytest.mark.parametrize("command", ["make demo", "make test"])
def test_the_two_commands_are_what_ci_runs(command: str) -> None:
    assert command in blocks("sh")[0]
    target = command.removeprefix("make ")
    assert re.search(rf"make .*{target}$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)


def test_every_file_that_the_readme_names_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", README)
    for name in links + re.findall(r"`((?:tests|docs)/[^`]+)`", README):
        assert (ROOT / name).exists(), name
