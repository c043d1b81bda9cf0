"""Looking after a store: verification and warming."""

from __future__ import annotations

import sys

import click

from vecstore.cli.common import Command, json_option, open_database, print_json, refuse_remote
from vecstore.config import load_config


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace", required=False)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
@click.pass_context
def verify(ctx: click.Context, url: str, namespace: str | None, quiet: bool, as_json: bool) -> None:
    """Read every object of a namespace, or of the store, against its checksums and the invariants.

    Status 0 if all is sound, 1 if not; orphans alone are no fault. Changes nothing.
    """
    from tqdm import tqdm

    from vecstore.maintenance.verify import verify

    refuse_remote(load_config({"url": url}).url)
    names = None if namespace is None else [namespace]
    with (
        open_database(url) as database,
        tqdm(total=0, unit="B", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar,
    ):

        def expect(more: int) -> None:
            bar.total = (bar.total or 0) + more

        report = verify(database.backend.store, names, expect=expect, progress=bar.update)
    if as_json:
        print_json(report)
    else:
        for problem in report.problems:
            click.echo(f"{problem.rule}\t{problem.message}")
        if report.found > len(report.problems):
            click.echo(f"and {report.found - len(report.problems):,} more")
        click.echo(
            f"{report.namespaces:,} namespaces, {report.objects:,} objects, {report.bytes:,} bytes: "
            f"{f'{report.found:,} problems' if report.found else 'sound'}; "
            f"{report.orphans:,} orphans ({report.orphan_bytes:,} bytes)"
        )
    ctx.exit(0 if report.sound else 1)
