"""Fuzzes all targets, or one, for some minutes.

    python -m tests.fuzz --minutes 60 [--target part] [--keep]

Inputs that reached something new are kept in ``out/fuzz/TARGET/corpus``, and findings beside them. A finding
is a report of a sanitizer, an exception that is none of the engine's errors, an answer of 5xx, more than
five seconds of a processor for one input, more than `MEGABYTES` of memory. Ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz import sanitised
from tests.fuzz.one import GUIDES

OUT: Final = sanitised.ROOT / "out" / "fuzz"
CORPUS: Final = Path(__file__).with_name("corpus")
SECONDS: Final = 120  # by the clock, until a process counts as hanging; see also `tests.fuzz.one.SECONDS`
MEGABYTES: Final = 3_000
LONGEST: Final = 256  # bytes of an input
SEEDS: Final = 200
KEPT: Final = 40  # inputs of a target that the suite runs, beside those that were findings
# Shares of the time. What reads parts has most to be found.
SHARES: Final = {"part": 10, "manifest": 4, "tombstone": 2, "requests": 4, "filters": 2, "kernels": 2}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=sorted(GUIDES))
    parser.add_argument(
        "--keep", action="store_true", help="write some of what was reached to tests/fuzz/corpus"
    )
    asked = parser.parse_args()
    chosen = [asked.target] if asked.target else list(SHARES)
    if asked.keep:
        for target in chosen:
            keep(target)
        return
    sanitised.build()
    whole, findings = sum(SHARES[target] for target in chosen), 0
    for target in chosen:
        findings += fuzz(target, 60 * asked.minutes * SHARES[target] / whole)
    sys.exit(1 if findings else 0)


def fuzz(target: str, seconds: float) -> int:
    """Fuzz one target; tells what was run and found."""
    folder = OUT / target
    corpus = folder / "corpus"
    seed(target, corpus)
    known = {path.name for path in folder.glob("*-*")}
    began, runs, coverage, round_ = time.monotonic(), 0, "", 0
    while (left := seconds - (time.monotonic() - began)) > 1:
        log = folder / f"log.{round_}"
        round_ += 1
        with log.open("wb") as sink:
            subprocess.run(
                [
                    *(sys.executable, "-m", "tests.fuzz.one", target, "--findings", str(folder)),
                    *(f"-max_total_time={int(left)}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"),
                    *(
                        f"-artifact_prefix={folder}/",
                        f"-max_len={LONGEST}",
                        "-len_control=0",
                        "-print_funcs=0",
                        f"-report_slow_units={SECONDS}",  # what is slow is judged by the processor's time
                    ),
                    str(corpus),
                ],
                cwd=sanitised.ROOT,
                env=sanitised.environment(),
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        told = log.read_text(errors="replace")
        counts = re.findall(r"^#(\d+)\s.*?cov: (\d+)", told, re.MULTILINE)
        if counts:
            runs, coverage = runs + int(counts[-1][0]), counts[-1][1]
        if not counts and "Done" not in told:
            print(told[-2000:])  # it did not even begin
            break
    found = sorted({path.name for path in folder.glob("*-*") if path.suffix != ".txt"} - known)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{target}: {runs} runs, {minutes:.1f} minutes, coverage {coverage}, new findings {len(found)}",
        flush=True,
    )
    for name in found:
        print(f"  {folder / name}", flush=True)
    return len(found)


def seed(target: str, corpus: Path) -> None:
    """What was kept of other runs, and inputs of random bytes, so that each question is asked at least."""
    if corpus.exists() and any(corpus.iterdir()):
        return
    corpus.mkdir(parents=True, exist_ok=True)
    for name, data in kept(target):
        (corpus / name).write_bytes(data)
    rng = Random(target)
    for number in range(SEEDS):
        (corpus / f"seed{number}").write_bytes(rng.randbytes(rng.randrange(8, 80)))


def kept(target: str) -> list[tuple[str, bytes]]:
    """The inputs of a target that are in the repository."""
    path = CORPUS / f"{target}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def keep(target: str) -> None:
    """Write some of the inputs that reached something new, and all that were findings, to the repository."""
    folder = OUT / target
    # Named by their digests, so that the first of them are a fair sample.
    reached = [path for path in sorted((folder / "corpus").iterdir()) if not path.name.startswith("seed")]
    chosen = {path.name: path.read_bytes() for path in reached[:KEPT]}
    chosen |= {f"found-{p.name}": p.read_bytes() for p in folder.glob("*-*") if p.suffix != ".txt"}
    chosen |= {name: data for name, data in kept(target) if name.startswith("found-")}
    CORPUS.mkdir(exist_ok=True)
    with zipfile.ZipFile(CORPUS / f"{target}.zip", "w") as archive:
        for name, data in sorted(chosen.items()):
            entry = zipfile.ZipInfo(name)  # of no date, so that the same inputs are the same file
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)


if __name__ == "__main__":
    main()
