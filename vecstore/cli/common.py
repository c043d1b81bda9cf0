"""What all commands of ``vecstore`` share: errors as one line, opening a database, printing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import click
import msgspec

from vecstore.config import Config, load_config
from vecstore.errors import NOT_JSON, InvalidArgument, VecstoreError
from vecstore.observe import Observer
from vecstore.progress import Progress
from vecstore.urls import is_server

F = Callable[..., Any]


class Command(click.Command):
    """Our errors as one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except VecstoreError as error:
            raise click.ClickException(" ".join(error.message.split())) from error
        except BrokenPipeError:
            sys.stderr.close()
            raise SystemExit(1) from None
        except UnicodeEncodeError as error:  # whatever is stored is UTF-8
            raise click.ClickException(f"an argument is not UTF-8: {error}") from error


class Group(click.Group):
    """Errors of the system as one line: above all that what is printed finds no room, be it a help."""

    command_class = Command

    def main(self, *args: Any, **more: Any) -> Any:
        if sys.stderr is None:  # it was closed: what is said goes nowhere, nor into what is opened next
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            return super().main(*args, **more)
        except OSError as error:
            click.ClickException(str(error)).show()
            raise SystemExit(1) from error


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(value: Any) -> None:
    from vecstore.server.wire import encode

    click.echo(msgspec.json.format(encode(value), indent=2).decode())


def schema_option(command: F) -> F:
    return click.option(
        "--schema", "declared", metavar="JSON", help='Attributes and their types: {"at": "datetime"}.'
    )(command)


def json_value(text: str | None, option: str) -> Any:
    """What an option holds as JSON; None if it was not given."""
    try:
        return None if text is None else msgspec.json.decode(text)
    except (*NOT_JSON, UnicodeEncodeError) as error:
        raise InvalidArgument(f"--{option} is not JSON: {error}", field=option) from error


def skipped_rows(count: int) -> str:
    """What a load says of the batches that it left out."""
    if not count:
        return ""
    why = "this file was loaded into it within the last hour"
    return f"; {count:,} were skipped: {why} (--again loads them anew)"


@contextmanager
def open_database(
    url: str | None,
    *,
    maintenance: Literal["thread", "off"] = "off",
    config: Config | None = None,
    observer: Observer | None = None,
) -> Iterator[Any]:
    from vecstore.api import connect

    config = config if config is not None else load_config({"url": url})
    if is_server(config.url):
        database = connect(config.url, timeout=config.client_timeout)
    else:
        database = connect(config.url, maintenance=maintenance, observer=observer, **config.connect_options)
    with database:
        yield database


def row_id(ns: Any, text: str) -> int | str:
    kind = ns.stats().id_kind
    if kind != "u64":
        return text
    if not text.isdecimal():
        raise InvalidArgument(f"ids of {ns.name} are integers, not {text!r}", field="id")
    return int(text)


def show_info(info: Any, as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    for name, value in msgspec.to_builtins(info).items():
        if name != "defaults":
            click.echo(f"{name:<20} {value}")
    for name, value in info.defaults.items():
        click.echo(f"  {name:<18} {value}")


def refuse_remote(url: str) -> None:
    """`InvalidArgument` for a command that needs the store at hand."""
    if is_server(url):
        raise InvalidArgument("this works on the store itself, not over HTTP", field="url")


@contextmanager
def progress_bar(what: str, quiet: bool) -> Iterator[Progress]:
    """A bar in per cent on a terminal, unless it is to be quiet."""
    from tqdm import tqdm

    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=1.0, desc=what, disable=quiet or None, file=sys.stderr, bar_format=bar_format) as bar:
        yield lambda share: bar.update(share - bar.n)
