"""``python -m tests.chaos``: as long as is wanted; exit status 1 if a promise was broken."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from tests.chaos.run import Plan, run


@click.command()
@click.option("--minutes", type=float, default=5.0, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of who is killed and who does what.")
@click.option("--kill-every", type=float, default=2.0, show_default=True, help="Seconds.")
@click.option("--restarts", type=int, default=2, show_default=True, help="Of the store.")
@click.option("--down", type=float, default=2.0, show_default=True, help="Seconds that the store is away.")
@click.option("--folder", type=click.Path(path_type=Path), help="Keep store and journals here.")
def main(
    minutes: float, seed: int, kill_every: float, restarts: int, down: float, folder: Path | None
) -> None:
    """Writers, readers, a compactor and a collector on SeaweedFS, one of them killed every so often."""
    plan = Plan(60 * minutes, seed, kill_every=kill_every, restarts=restarts, down=down)
    with tempfile.TemporaryDirectory(prefix="vecstore-chaos-") as own:
        if folder is not None:
            folder.mkdir(parents=True)
        report = run(plan, folder if folder is not None else Path(own))
    print(report)
    sys.exit(0 if report.sound else 1)


if __name__ == "__main__":
    main()
