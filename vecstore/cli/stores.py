"""About a store itself: whether it is fit."""

from __future__ import annotations

import uuid
from typing import Any

import click

from vecstore.cli.common import Command, json_option, print_json, refuse_remote
from vecstore.config import load_config
from vecstore.urls import is_s3


@click.command("check-store", cls=Command)
@click.argument("url", required=False)
@json_option
def check_store(url: str | None, as_json: bool) -> None:
    """Try out whether a store does what vecstore asks of one; status 1 if it does not.

    Writes some 30 MB under a folder of its own and removes them. docs/stores.md tells what is asked,
    and which stores are known to do it.
    """
    from vecstore.storage.open import open_store
    from vecstore.storage.suitability import PIECE, examine

    config = load_config({"url": url})
    refuse_remote(config.url)
    options: dict[str, Any] = {"part_bytes": PIECE} if is_s3(config.url) else {}
    mine, theirs = open_store(config.url, **options), open_store(config.url, **options)
    findings = []
    try:
        for finding in examine(mine, theirs, f"check-store/{uuid.uuid4().hex}"):
            findings.append(finding)
            if not as_json:
                click.echo(f"{'ok     ' if finding.passed else 'MISSING'} {finding.name}: {finding.asks}")
                if not finding.passed:
                    click.echo(f"        {finding.problem}")
    finally:
        mine.close()
        theirs.close()
    missing = [finding.name for finding in findings if not finding.passed]
    if as_json:
        print_json({"url": mine.url, "fit": not missing, "checks": findings})
    elif not missing:
        click.echo(f"{mine.url} does what vecstore asks of a store")
    if missing:
        raise SystemExit(1)
