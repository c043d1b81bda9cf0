"""Builds the extension modules; everything else is in pyproject.toml.

One wheel runs on every processor of its architecture: the translation units are compiled for
the baseline, and the functions in ``ext/simd/*/<isa>.h`` carry their target as an attribute.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from glob import glob

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup


def require_toolchain() -> None:
    """Stop with one line where the build could only end in a traceback."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(f"vecstore: no C compiler: '{compiler}' is not on PATH (Debian: apt-get install gcc)")
    header = os.path.join(sysconfig.get_paths()["include"], "Python.h")
    if not os.path.exists(header):
        sys.exit(f"vecstore: no Python headers: {header} is missing (Debian: apt-get install python3-dev)")


BUILDING = not {"egg_info", "dist_info", "sdist", "--version", "clean"} & set(sys.argv[1:])
if BUILDING:
    require_toolchain()

HEADERS = sorted(glob("ext/**/*.h", recursive=True) + glob("vecstore/ext/*.pxd"))

EXTENSIONS = [
    Extension(
        f"vecstore.ext.{name}",
        [f"ext/{name}.pyx"],
        include_dirs=[numpy.get_include(), "ext"],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
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
    options={"build_ext": {"parallel": os.cpu_count()}},
)
