"""Looking after a store: verification and warming."""

from __future__ import annotations

import sys
from typing import Any

import click

from vecstore.cli.common import Command, json_option, open_database, print_json, refuse_remote
from vecstore.config import load_config
from vecstore.errors import InvalidArgument
from vecstore.urls import is_server


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


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def warm(url: str, namespace: str, quiet: bool, as_json: bool) -> None:
    """Read what searches need into the disk cache here, or into the caches of a server."""
    from tqdm import tqdm

    config = load_config({"url": url})
    if not is_server(config.url) and not config.cache_dir:
        raise InvalidArgument(
            "what this process warms ends with it: name a server's URL, or the folder of a disk cache "
            "that others use too (VECSTORE_CACHE_DIR)",
            field="cache_dir",
        )
    with (
        open_database(url, config=config) as database,
        tqdm(total=0, unit="B", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar,
    ):

        def tell(done: Any) -> None:
            bar.total = done.total
            bar.update(done.warmed - bar.n)

        done = database.namespace(namespace).warm(progress=tell)
    if as_json:
        print_json(done)
        return
    less = "" if done.warmed == done.total else "; the caches have no more room"
    click.echo(
        f"{done.warmed:,} of {done.total:,} bytes are warm, {done.fetched:,} were fetched, "
        f"epoch {done.epoch}{less}"
    )
