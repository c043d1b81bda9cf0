"""What this installation is: ``vecstore --version`` and ``vecstore info`` tell it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.resources import files

from vecstore.config import package_version
from vecstore.ext import rabitq

__all__ = ["About", "about"]


@dataclass(frozen=True, slots=True)
class About:
    """An installation, and the machine that it runs on.

    Attributes
    ----------
    vecstore
        The version.
    revision
        The commit that a wheel was built from, with ``-dirty`` if there were changes beside it; None
        in a checkout, which has git to ask.
    compiler
        What compiled the extension modules.
    simd
        The variant of the kernels in use.
    simd_available
        Those that this processor can run, the plainest first.
    simd_compiled
        Those that the build holds.
    python
        The interpreter and its version.
    platform
        Operating system, processor and C library.
    """

    vecstore: str
    revision: str | None
    compiler: str
    simd: str
    simd_available: tuple[str, ...]
    simd_compiled: tuple[str, ...]
    python: str
    platform: str


def about() -> About:
    """Facts of this process."""
    told = files("vecstore") / "revision"
    return About(
        vecstore=package_version(),
        revision=told.read_text().strip() if told.is_file() else None,
        compiler=rabitq.compiler(),
        simd=rabitq.simd(),
        simd_available=rabitq.simd_available(),
        simd_compiled=rabitq.simd_compiled(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=" ".join((platform.system(), platform.machine(), *filter(None, platform.libc_ver()))),
    )
