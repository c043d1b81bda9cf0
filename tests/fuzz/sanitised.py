"""The extension modules built with sanitizers, beside the ordinary ones, and the environment that they need.

Clang with its address and undefined-behaviour sanitizers, and libFuzzer's coverage. The run-time library is
atheris's, which holds all three; it is preloaded, since Python itself is not built so. pyroaring is built
likewise: its C code reads bitmaps of others.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from glob import glob
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
BUILT: Final = ROOT / "build" / "sanitised"
SANITIZERS: Final = "-fsanitize=address,undefined,fuzzer-no-link"
SUPPRESSIONS: Final = Path(__file__).with_name("ubsan.supp")
CLANGS: Final = ("clang", *(f"clang-{n}" for n in range(21, 13, -1)))
FLAGS: Final = (
    SANITIZERS,
    "-fno-sanitize-recover=undefined",
    "-fno-omit-frame-pointer",
    "-g1",
    "-Wno-everything",
)


def clang() -> str:
    """The compiler; says what to install where there is none."""
    for name in CLANGS:
        if shutil.which(name):
            return name
    sys.exit("no clang: apt-get install clang-16 libclang-rt-16-dev llvm-16")


def build() -> Path:
    """Build what has changed since; returns the folder that holds it."""
    patterns = ("ext/**/*.pyx", "ext/**/*.h", "vecstore/ext/*.pxd", "setup.py", "tests/fuzz/sanitised.py")
    sources = sorted(name for pattern in patterns for name in glob(f"{ROOT}/{pattern}", recursive=True))
    digest = hashlib.sha256(b"".join(Path(name).read_bytes() for name in sources)).hexdigest()
    stamp = BUILT / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return BUILT
    compiler = clang()
    environment = {
        **os.environ,
        "CC": compiler,
        "CXX": compiler.replace("clang", "clang++"),
        "LDSHARED": f"{compiler} -shared",
        "CFLAGS": " ".join(FLAGS),
        "LDFLAGS": SANITIZERS,
    }
    setup = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(BUILT)]
    subprocess.run([*setup, "--build-temp", f"{BUILT}-temp"], cwd=ROOT, env=environment, check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--no-cache-dir",
        "--upgrade",
    ]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(BUILT), f"pyroaring=={version('pyroaring')}"],
        env=environment,
        check=True,
    )
    stamp.write_text(digest)
    return BUILT


def environment() -> dict[str, str]:
    """What a process needs that imports them."""
    found = importlib.util.find_spec("atheris")
    if found is None or found.origin is None:
        sys.exit("no atheris: pip install atheris")
    symbolizer = next((s for n in range(21, 13, -1) if (s := shutil.which(f"llvm-symbolizer-{n}"))), "")
    return {
        **os.environ,
        "LD_PRELOAD": str(Path(found.origin).parent.parent / "asan_with_fuzzer.so"),
        "PYTHONMALLOC": "malloc",  # each object an allocation of its own, with poison around it
        "ASAN_OPTIONS": (
            "detect_leaks=0:allocator_may_return_null=1:handle_segv=1:detect_stack_use_after_return=0:"
            f"external_symbolizer_path={symbolizer}"
        ),
        "UBSAN_OPTIONS": f"print_stacktrace=1:suppressions={SUPPRESSIONS}",
        "OPENBLAS_NUM_THREADS": "1",
    }


class _Sanitised(MetaPathFinder):
    """Finds extension modules of vecstore, and pyroaring, among those that were built here."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.startswith("vecstore.ext."):
            return PathFinder.find_spec(name, [str(BUILT / "vecstore" / "ext")], target)
        if name == "pyroaring":
            return PathFinder.find_spec(name, [str(BUILT)], target)
        return None


def use() -> None:
    """Import the sanitised modules in place of the ordinary ones from here on."""
    sys.meta_path.insert(0, _Sanitised())


def tight_copies() -> None:
    """Have buffers that kernels read end where their allocation ends, so that a read beyond them is seen."""
    import numpy as np

    from vecstore.storage import buffers, cache, memory

    ordinary = buffers.aligned_copy

    def tight(data: bytes | memoryview) -> buffers.Bytes:
        copy = np.empty(len(data), dtype=np.uint8)
        if copy.ctypes.data % buffers.ALIGNMENT:
            return ordinary(data)
        copy[:] = np.frombuffer(data, dtype=np.uint8)
        copy.flags.writeable = False
        return copy

    cache.aligned_copy = memory.aligned_copy = tight  # type: ignore[attr-defined]
