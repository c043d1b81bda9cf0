"""``python -m tests.simulation``: run one seed, so many of them, or as many as fit into some minutes."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import nullcontext

import click

from tests.simulation.rules import RULES
from tests.simulation.world import Setup, simulate


@click.command()
@click.option("--seed", type=int, default=1, show_default=True, help="The first seed.")
@click.option("--steps", type=int, default=2_500, show_default=True, help="Scheduled store calls a seed.")
@click.option("--seeds", type=int, default=1, show_default=True, help="How many seeds, one after another.")
@click.option("--minutes", type=float, help="Go on with further seeds for so long.")
@click.option("--rule-off", type=click.Choice(list(RULES)), help="Plant a bug and look for it.")
def main(seed: int, steps: int, seeds: int, minutes: float | None, rule_off: str | None) -> None:
    """Exit status 1 as soon as a promise is broken; what is printed then repeats it."""
    rule = RULES[rule_off] if rule_off is not None else None
    play = rule.play if rule is not None else None
    started, spent = time.monotonic(), time.process_time()
    done, counts = 0, Counter[str]()
    at = seed
    while at < seed + seeds or (minutes is not None and time.monotonic() - started < 60 * minutes):
        setup = Setup.of(at, steps) if play is None else Setup.directed()
        try:
            with rule.off() if rule is not None else nullcontext():
                report = simulate(rule.setup(setup) if rule is not None else setup, play)
        except Exception as broken:
            print("\n".join(broken.__notes__))
            print(f"{type(broken).__name__}: {broken}")
            planted = f" --rule-off {rule_off}" if rule_off is not None else ""
            print(f"again: python -m tests.simulation --seed {at} --steps {steps}{planted}")
            sys.exit(1)
        done += report.steps
        counts.update(report.counts)
        counts.update(report.faults)
        print(f"seed {at}: {report.steps} steps, {report.seconds:,.0f} virtual seconds, {report.digest}")
        sys.stdout.flush()
        at += 1
    spent = time.process_time() - spent
    print(", ".join(f"{what} {n}" for what, n in sorted(counts.items())))
    print(f"{at - seed} seeds, {done} steps, {done / spent:.0f} a second of processor time; nothing broken")


if __name__ == "__main__":
    main()
