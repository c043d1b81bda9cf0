"""History of a namespace: manifests and rows of past epochs, restore, branches, tags."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from vecstore.cli.common import Command, Group, json_option, open_database, print_json, row_id, show_info


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.argument("id")
@click.option("--epoch", type=int, help="A past epoch.")
@click.option("--no-vector", is_flag=True, help="Without its vector.")
def get(url: str, namespace: str, id: str, epoch: int | None, no_vector: bool) -> None:
    """Print the row of an id as JSON, as it is or was at a past epoch."""
    from vecstore.server.wire import row_view

    with open_database(url) as database:
        ns = database.namespace(namespace)
        row = ns.get(row_id(ns, id), epoch=epoch, include_vector=not no_vector)
    print_json(row_view(row, with_vector=not no_vector))


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.option("--epoch", type=int, help="A past epoch.")
def manifest(url: str, namespace: str, epoch: int | None) -> None:
    """Print the manifest as JSON, as it is or was at a past epoch."""
    with open_database(url) as database:
        print_json(database.namespace(namespace).manifest(epoch))


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.option("--epoch", required=True, type=int, help="The epoch to make current again.")
@click.option("--seen", type=int, help="The epoch that is replaced; asked for if it is not given.")
@json_option
def restore(url: str, namespace: str, epoch: int, seen: int | None, as_json: bool) -> None:
    """Make a past epoch current again, by one commit.

    It is refused if anything was written since the epoch that was seen.
    """
    with open_database(url) as database:
        ns = database.namespace(namespace)
        now = ns.stats()
        if seen is None:
            click.confirm(
                f"Replace epoch {now.epoch} of {namespace} with {now.rows:,} rows by epoch {epoch}?",
                abort=True,
                err=True,
            )
        info = ns.restore(epoch, if_match=(now.incarnation, now.epoch if seen is None else seen))
    if as_json:
        show_info(info, as_json)
    else:
        click.echo(f"{namespace} has {info.rows:,} rows of epoch {epoch} at epoch {info.epoch}")


@click.command(cls=Command)
@click.argument("url")
@click.argument("namespace")
@click.argument("name")
@click.option("--epoch", type=int, help="A past epoch; the current one by default.")
@json_option
def branch(url: str, namespace: str, name: str, epoch: int | None, as_json: bool) -> None:
    """Make namespace NAME from an epoch of another one, sharing its parts."""
    with open_database(url) as database:
        info = database.namespace(namespace).branch(name, epoch).stats()
    if as_json:
        show_info(info, as_json)
    else:
        click.echo(f"{name} has {info.rows:,} rows of {namespace}")


@click.group(cls=Group)
def tag() -> None:
    """Tags, which hold an epoch against collection: list, create, delete."""


@tag.command("list")
@click.argument("url")
@click.argument("namespace")
@json_option
def tag_list(url: str, namespace: str, as_json: bool) -> None:
    """Names, with their epochs and when they were made."""
    with open_database(url) as database:
        tags = database.namespace(namespace).tags()
    if as_json:
        print_json(tags)
        return
    for one in tags:
        made = datetime.fromtimestamp(one.created_at, UTC).isoformat(timespec="seconds")
        click.echo(f"{one.name}\tepoch {one.epoch}\t{made}")


@tag.command("create")
@click.argument("url")
@click.argument("namespace")
@click.argument("name")
@click.option("--epoch", type=int, help="A past epoch; the current one by default.")
@json_option
def tag_create(url: str, namespace: str, name: str, epoch: int | None, as_json: bool) -> None:
    """Hold an epoch."""
    with open_database(url) as database:
        made = database.namespace(namespace).tag(name, epoch)
    if as_json:
        print_json(made)
    else:
        click.echo(f"{name} holds epoch {made.epoch} of {namespace}")


@tag.command("delete")
@click.argument("url")
@click.argument("namespace")
@click.argument("name")
def tag_delete(url: str, namespace: str, name: str) -> None:
    """Let go of an epoch."""
    with open_database(url) as database:
        database.namespace(namespace).untag(name)
    click.echo(f"{name} deleted")
