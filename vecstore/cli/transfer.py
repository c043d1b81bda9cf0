"""Whole namespaces and their rows: scan, export, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from vecstore.cli.common import Command, json_option, json_value, open_database, print_json, skipped_rows


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.option("--filter", "given", metavar="JSON", help='Only rows that it matches: ["lang", "Eq", "en"].')
@click.option(
    "--include", multiple=True, help="An attribute that rows bring, or vector; all attributes if none."
)
@click.option("--exclude", multiple=True, help="An attribute that they do not bring.")
@click.option("--order", type=click.Choice(["id", "stored"]), help="By id if ids are integers.")
@click.option("--epoch", type=int, help="A past epoch.")
@click.option("--limit", type=click.IntRange(1), help="So many rows; all by default.")
def scan(
    url: str,
    namespace: str,
    given: str | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    order: Literal["id", "stored"] | None,
    epoch: int | None,
    limit: int | None,
) -> None:
    """Print rows of one epoch as JSON, a line each."""
    from vecstore.server.scans import scanned
    from vecstore.server.wire import encode

    chosen = json_value(given, "filter")
    left = limit
    with open_database(url) as database:
        pages = (
            database.namespace(namespace)
            .scan(
                filter=chosen,
                include=list(include) if include else None,
                exclude=list(exclude) if exclude else None,
                order=order,
                epoch=epoch,
                limit=1_000 if limit is None else min(1_000, limit),
            )
            .pages()
        )
        for page in pages:
            for row in scanned(page, "numbers").rows[:left]:
                click.echo(encode(row))
            if left is not None:
                left -= len(page)
                if left <= 0:
                    return


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--epoch", type=int, help="A past epoch.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def export(url: str, namespace: str, file: Path, epoch: int | None, quiet: bool, as_json: bool) -> None:
    """Write all rows of one epoch to FILE: .parquet or .jsonl, with schema and settings."""
    from tqdm import tqdm

    from vecstore.export import export_namespace

    with open_database(url) as database:
        ns = database.namespace(namespace)
        total = ns.stats().rows if epoch is None else None
        with tqdm(total=total, unit="row", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar:
            done = export_namespace(ns, file, epoch=epoch, progress=bar.update)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.rows:,} rows of epoch {done.epoch} in {file}, {done.bytes:,} bytes")


@click.command("import", cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--batch", default=10_000, show_default=True, type=click.IntRange(1), help="Rows an insert.")
@click.option("--mode", type=click.Choice(["upsert", "insert"]), default="upsert", show_default=True)
@click.option("--again", is_flag=True, help="Also what was loaded within the last hour.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def import_(
    url: str,
    namespace: str,
    file: Path,
    batch: int,
    mode: Literal["upsert", "insert"],
    again: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Load an export into a new namespace like the one it was made of, or into one that fits.

    An interrupted import is taken up again by the same command within an hour.
    """
    from tqdm import tqdm

    from vecstore.ingest import import_namespace, open_file

    opened = open_file(file)
    with (
        open_database(url, maintenance="thread") as database,
        tqdm(total=opened.rows, unit="row", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar,
    ):
        done = import_namespace(
            database, namespace, opened, batch_rows=batch, mode=mode, again=again, progress=bar.update
        )
        info = database.namespace(namespace).stats()
    if as_json:
        print_json(
            {"rows": done.rows, "skipped": done.skipped, "epoch": info.epoch, "namespace_rows": info.rows}
        )
    else:
        click.echo(
            f"{done.rows:,} rows imported; {namespace} has {info.rows:,} at epoch {info.epoch}"
            f"{skipped_rows(done.skipped)}"
        )
