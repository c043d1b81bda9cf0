"""``python -m bench.rows 1 2 --set glosses``: measure rows, print their verdicts and record them.

The process keeps to one processor (``--processors`` for more) and the libraries to one thread each.
Results go to ``--into``: ``rows.json`` (a row measured again replaces what it said before) and one file
a comparison. Exit status 1 if a row fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def pin(processors: int, module: str = "bench.rows") -> None:
    """Keep to so many processors; the libraries read their variables when they load."""
    if any(os.environ.get(name) != "1" for name in THREADS):
        environment = os.environ | dict.fromkeys(THREADS, "1")
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], environment)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-processors:])


def main() -> None:
    """Parse, pin, measure, record."""
    parser = argparse.ArgumentParser(description="Measure rows of docs/benchmarks.md.")
    parser.add_argument("rows", nargs="*", type=int, help="their numbers; all but 10 if none is given")
    parser.add_argument(
        "--set", action="append", help="glosses, fashion, grown or sample; default: all three"
    )
    parser.add_argument("--engine", action="append", help="peers to compare with; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="times that each contender is measured")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument(
        "--small",
        action="store_true",
        help="one index an engine, the shipped sample, one round: under 5 minutes",
    )
    parser.add_argument("--fresh", action="store_true", help="build every index anew")
    parser.add_argument("--processors", type=int, default=1)
    parser.add_argument("--into", type=Path, default=None, help="default: out/bench")
    options = parser.parse_args()
    pin(options.processors)

    from bench import peers, report, sets
    from bench.rows import Run, rows

    for engine in options.engine or ():
        if engine not in peers.PEERS:
            parser.error(f"--engine is one of {', '.join(peers.PEERS)}, not {engine}")

    run = Run(
        names=tuple(options.set or (("sample",) if options.small else ("glosses", "fashion", "grown"))),
        engines=tuple(options.engine or peers.PEERS),
        rounds=1 if options.small else options.rounds,
        clock=options.clock,
        into=options.into or sets.OUT / "bench",
        small=options.small,
        fresh=options.fresh,
        say=lambda text: print(f"  {text}", file=sys.stderr, flush=True),
    )
    chosen = options.rows or [row for row in rows() if row != 10 and not (options.small and row in (6, 8))]
    failed = False
    for number in chosen:
        try:
            for verdict in rows()[number](run):
                failed |= verdict.passed is False
                print(verdict, flush=True)
                report.keep(run.into, [verdict], run.comparisons(), options.clock)
        except sets.DataMissing as missing:
            print(f"row {number:2} skipped: {missing}", flush=True)
    run.close()
    report.write(run.into)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
