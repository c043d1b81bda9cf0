"""Makes what is published, in ``dist/``: the source distribution, wheels, and a bill of materials.

``make wheels`` runs it, with the tools that ``.ci/release.txt`` pins and the headers of the Python that it
runs in, which is CPython 3.11. Zig's C compiler builds for glibc 2.28 and for any processor, on any. Wheels
are built from the source distribution, twice, in folders of other names: the same bytes must come out.
``docs/packages.md`` says what is checked.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
ARCHITECTURES = ("x86_64", "aarch64")
GLIBC = (2, 28)
MOST_BYTES = 2_000_000  # of a wheel


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--architecture", choices=ARCHITECTURES, help="only this one; all by default")
    chosen = parser.parse_args().architecture
    if sys.version_info[:2] != (3, 11):
        sys.exit("wheels are built with CPython 3.11, whose stable ABI they keep to")
    if run("git", "status", "--porcelain", "--untracked-files=no"):
        print("There are changes that are not committed: the revision ends with -dirty", flush=True)
    os.environ["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct")
    DIST.mkdir(exist_ok=True)
    for old in DIST.iterdir():
        old.unlink()
    source = make_sdist()
    for architecture in [chosen] if chosen else ARCHITECTURES:
        make_wheel(source, architecture)
    for made in sorted(DIST.iterdir()):
        print(f"{made.name}: {made.stat().st_size:,} bytes", flush=True)


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; if it fails, its own words end this program."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def tool(module: str, *words: str | Path, **environment: str) -> str:
    return run(sys.executable, "-m", module, *map(str, words), **environment)


def make_sdist() -> Path:
    with tempfile.TemporaryDirectory() as folder:
        tool("build", "--sdist", "--no-isolation", "--outdir", folder, ROOT)
        (made,) = Path(folder).iterdir()
        return level(made, DIST / made.name)


def level(source: Path, to: Path) -> Path:
    """A copy of an archive without what differs from one making to the next: order, times, owners."""
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    raw = io.BytesIO()
    with tarfile.open(source) as old, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    to.write_bytes(gzip.compress(raw.getvalue(), mtime=epoch))
    return to


def make_wheel(source: Path, architecture: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = (
            build(source, Path(folder) / name, architecture) for name in ("once", "and-once-more/below")
        )
        if first.read_bytes() != second.read_bytes():
            sys.exit(f"{first.name}: two builds differ; kept in {keep(first, second)}")
        wheel = DIST / first.name
        wheel.write_bytes(first.read_bytes())
    needed = re.search(
        rf'platform tag:\s+"manylinux_(\d+)_(\d+)_{architecture}"', tool("auditwheel", "show", wheel)
    )
    if needed is None or (int(needed[1]), int(needed[2])) > GLIBC:
        sys.exit(f"{wheel.name} is no wheel for glibc {GLIBC[0]}.{GLIBC[1]}: see auditwheel show")
    tool("abi3audit", "--strict", wheel)
    if wheel.stat().st_size > MOST_BYTES:
        sys.exit(f"{wheel.name} has {wheel.stat().st_size:,} bytes; the budget is {MOST_BYTES:,}")


def build(source: Path, folder: Path, architecture: str) -> Path:
    """The wheel that one build in a folder makes."""
    folder.mkdir(parents=True)
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    compiler = f"{sys.executable} -m ziglang cc -target {architecture}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    tool(
        "build", "--wheel", "--no-isolation", "--outdir", folder / "made", tree,
        f"-C--build-option=--plat-name=manylinux_{GLIBC[0]}_{GLIBC[1]}_{architecture}",
        CC=compiler, LDSHARED=f"{compiler} -shared", CFLAGS="-g0", LDFLAGS="-Wl,-s",
        _PYTHON_HOST_PLATFORM=f"linux-{architecture}",
    )  # fmt: skip
    (wheel,) = (folder / "made").iterdir()
    return wheel


def keep(*wheels: Path) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="vecstore-wheels-"))
    for number, wheel in enumerate(wheels):
        (kept / f"{number}-{wheel.name}").write_bytes(wheel.read_bytes())
    return kept


if __name__ == "__main__":
    main()
