"""Checks in C, compiled with the flags of the build and run without Python."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NATIVE = next((c for c in (os.environ.get("CC", ""), "cc", "gcc") if c and shutil.which(c)), None)

needs_compiler = pytest.mark.skipif(NATIVE is None, reason="no C compiler")


def build_flags() -> list[str]:
    found = re.search(r"extra_compile_args=(\[[^]]*\])", (ROOT / "setup.py").read_text())
    assert found
    flags: list[str] = ast.literal_eval(found[1])
    return flags


def compile_check(source: Path, compiler: str, to: Path, *more: str, headers: Path = ROOT / "ext") -> Path:
    command = [compiler, *build_flags(), *more, f"-I{headers}", str(source), "-o", str(to), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return to


def run_check(*command: str | Path) -> tuple[int, list[str]]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()
