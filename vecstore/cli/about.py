"""About the installation: ``vecstore --version`` and ``vecstore info``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import click
import msgspec

from vecstore.cli.common import Command, json_option, print_json

_PACKAGES: Final = ("numpy", "msgspec", "pyroaring", "flask", "gunicorn", "boto3", "urllib3", "pyarrow")


def show_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    """Print the version and the facts of the build, and end."""
    if asked and not ctx.resilient_parsing:
        _show(_facts())
        ctx.exit()


@click.command(cls=Command)
@json_option
def info(as_json: bool) -> None:
    """Versions, of what it rests on too, and the instruction set that the kernels use."""
    found = _facts() | {package: _version(package) for package in _PACKAGES}
    if as_json:
        print_json(found)
    else:
        _show(found)


def _facts() -> dict[str, Any]:
    from vecstore.about import about

    found: dict[str, Any] = msgspec.to_builtins(about())
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _show(facts: Mapping[str, Any]) -> None:
    for name, value in facts.items():
        if value is None:
            text = "a checkout" if name == "revision" else "not installed"
        else:
            text = value if isinstance(value, str) else ", ".join(value)
        click.echo(f"{name:<15} {text}")
