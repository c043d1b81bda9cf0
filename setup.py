"""Builds the extension modules; everything else is in pyproject.toml.

One wheel runs on every processor of its architecture: the translation units are compiled for
the baseline, and the functions in ``ext/simd/*/<isa>.h`` carry their target as an attribute. It
runs on every CPython from 3.11 on: the modules keep to the stable ABI
(``docs/decisions/0030-wheels-for-the-stable-abi.md``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent


def require_toolchain() -> None:
    """Stop with one line where the build could only end in a traceback."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"vecstore: no C compiler: '{compiler}' is not on PATH (Debian: apt-get install gcc)")
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        sys.exit(f"vecstore: no Python headers: {header} is missing (Debian: apt-get install python3-dev)")


def revision() -> str:
    """The commit that is built: as the source distribution says, or git; empty if neither knows."""
    told = ROOT / "vecstore" / "revision"
    if told.exists():
        return told.read_text()
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    asked = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


class TellingBuild(build_py):
    """Puts the revision into a wheel; an editable installation has a checkout to ask."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (told := revision()):
            Path(self.build_lib, "vecstore", "revision").write_text(told)


class TellingSdist(sdist):
    """Puts the revision into a source distribution."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if told := revision():
            Path(base_dir, "vecstore", "revision").write_text(told)


BUILDING = not {"egg_info", "dist_info", "sdist", "--version", "clean"} & set(sys.argv[1:])
if BUILDING:
    require_toolchain()

HEADERS = sorted(glob("ext/**/*.h", recursive=True) + glob("vecstore/ext/*.pxd"))

EXTENSIONS = [
    Extension(
        f"vecstore.ext.{name}",
        [f"ext/{name}.pyx"],
        include_dirs=[numpy.get_include(), "ext"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("Py_LIMITED_API", "0x030B0000")],
        py_limited_api=True,
        extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden"],
        depends=HEADERS,
    )
    for name in (
        "files",
        "rabitq",
        "ivf",
        "rerank",
        "field",
        "search",
        "batch",
        "masks",
        "records",
        "train",
        "columns",
        "json",
    )
]

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        include_path=["."],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
    if BUILDING
    else [],
    cmdclass={"build_py": TellingBuild, "sdist": TellingSdist},
    options={"build_ext": {"parallel": os.cpu_count()}, "bdist_wheel": {"py_limited_api": "cp311"}},
)
