"""Copies between stores: backup and restore."""

from __future__ import annotations

import sys
from typing import Any

import click

from vecstore.cli.common import Command, json_option, print_json, refuse_remote
from vecstore.errors import InvalidArgument
from vecstore.urls import is_s3


@click.command(cls=Command)
@click.argument("source")
@click.argument("target")
@click.argument("namespaces", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Tell what would be copied; change nothing.")
@click.option("--source-profile", help="AWS profile that reaches the source; the environment's by default.")
@click.option("--target-profile", help="AWS profile that reaches the target.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
@click.pass_context
def copy(
    ctx: click.Context,
    source: str,
    target: str,
    namespaces: tuple[str, ...],
    dry_run: bool,
    source_profile: str | None,
    target_profile: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Copy NAMESPACES, or all, with their tags from one store to another.

    Each as it is at one epoch, while others write. Sends only what the target lacks, checks it on the way and
    where it arrived, and ends with one commit a namespace. One that was written to at the target is left
    alone. Status 1 if a namespace was not copied. docs/backup.md has the drill.
    """
    from tqdm import tqdm

    from vecstore.maintenance.copying import copy_store

    refuse_remote(source)
    refuse_remote(target)
    origin, goal = _open(source, source_profile), _open(target, target_profile)
    try:
        with tqdm(total=0, unit="B", unit_scale=True, disable=quiet or None, file=sys.stderr) as bar:

            def expect(more: int) -> None:
                bar.total = (bar.total or 0) + more

            result = copy_store(
                origin, goal, namespaces or None, dry_run=dry_run, expect=expect, progress=bar.update
            )
    finally:
        origin.close()
        goal.close()
    if as_json:
        print_json(result)
    else:
        for one in result.namespaces:
            if one.code is not None:
                click.echo(f"{one.name}\tNOT COPIED\t{one.code}: {one.message}")
                continue
            state = "up to date" if not one.changed else "to be copied" if dry_run else "copied"
            sent = "to send" if dry_run else "sent"
            click.echo(
                f"{one.name}\t{state}\tepoch {one.epoch}, {one.copied:,} parts ({one.copied_bytes:,} bytes) "
                f"{sent}, {one.skipped:,} ({one.skipped_bytes:,} bytes) there already"
            )
    ctx.exit(1 if result.failed else 0)


def _open(url: str, profile: str | None) -> Any:
    from vecstore.storage.open import open_store

    if profile is None:
        return open_store(url)
    if not is_s3(url):
        raise InvalidArgument(f"{url} is not on S3: it has no profile", field="profile")
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.session.Session(profile_name=profile)
    except BotoCoreError as error:
        raise InvalidArgument(f"{url}: {error}", field="profile") from error
    return open_store(url, session=session)
