"""Installs a wheel as a newcomer would, and runs the README's first search.

``python .ci/try_wheel.py WHEEL [SBOM]``. The environment is empty, and its PATH holds nothing else:
no compiler above all. pip takes wheels alone. A bill of materials, in CycloneDX, goes to SBOM.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 60.0
COMPILERS = ("cc", "gcc", "clang", "c++", "zig")


def main(wheel: Path, sbom: Path | None = None) -> None:
    (script,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        subprocess.run([sys.executable, "-m", "venv", f"{folder}/venv"], check=True)
        path = f"{folder}/venv/bin"
        found = [name for name in COMPILERS if shutil.which(name, path=path)]
        if found:
            sys.exit(f"there are compilers on {path}: {', '.join(found)}")
        environment = {name: value for name, value in os.environ.items() if name not in {"CC", "PYTHONPATH"}}
        environment["PATH"] = path

        def run(*command: str) -> None:
            subprocess.run([f"{path}/{command[0]}", *command[1:]], cwd=folder, env=environment, check=True)

        run("pip", "install", "--quiet", "--only-binary=:all:", str(wheel.resolve()))
        run("python", "-c", script)
        taken = time.monotonic() - began
        run("vecstore", "--version")
        print(f"Installed, and searched, in {taken:.0f} s", flush=True)
        if taken > MOST_SECONDS:
            sys.exit(f"the limit is {MOST_SECONDS:.0f} s")
        if sbom is not None:
            run("pip", "uninstall", "--quiet", "--yes", "pip", "setuptools")
            make_sbom(f"{path}/python", sbom)


def make_sbom(python: str, to: Path) -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", python),
            *("--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible"),
            *("--of", "JSON", "--output-file", str(to)),
        ],
        check=True,
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
