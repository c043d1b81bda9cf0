"""What is packed: a source distribution that is whole, and the revision that it carries."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEFT_OUT = {".editorconfig", ".gitignore"}

needs_git = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="not a checkout of git"
)


def git(*words: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(["git", *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution of what git tracks, unpacked. It is made of a copy: this tree stays as it is."""
    folder = tmp_path_factory.mktemp("sdist")
    copy = folder / "checkout"
    for name in git("ls-files", "-z").split("\0")[:-1]:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    git("init", "-q", str(copy))
    git("add", "-A", cwd=copy)
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "All", cwd=copy)
    command = [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", str(folder / "dist")]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = (folder / "dist").iterdir()
    with tarfile.open(made) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    return tree


@needs_git
def test_a_source_distribution_holds_every_file_that_git_tracks(packed: Path) -> None:
    tracked = {name for name in git("ls-files", "-z").split("\0")[:-1] if (ROOT / name).is_file()}
    there = {str(path.relative_to(packed)) for path in packed.rglob("*") if path.is_file()}
    assert not tracked - LEFT_OUT - there
    made = {"PKG-INFO", "setup.cfg", "vecstore/revision"}
    assert not {name for name in there - tracked - made if ".egg-info/" not in name}


@needs_git
def test_a_source_distribution_says_of_which_commit_it_is(packed: Path) -> None:
    checkout = packed.parents[1] / "checkout"
    assert (packed / "vecstore" / "revision").read_text() == git("rev-parse", "HEAD", cwd=checkout)
