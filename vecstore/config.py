"""Settings of the commands and the server: options, ``VECSTORE_*`` variables, one TOML file.

The first that has a setting wins, in this order. The names are the same everywhere: ``port`` in the
file is ``VECSTORE_PORT`` and ``--port``. What a namespace keeps lies in its manifest, not here.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from vecstore.errors import InvalidArgument
from vecstore.limits import COMPACTION_BYTES, LEAST_COMPACTION_BYTES, MAX_BODY_BYTES, MAX_KEY_RATE

PREFIX: Final = "VECSTORE_"
FILE: Final = "vecstore.toml"
# Variables with our prefix that are not settings: the file's place, the kernels', a client's key, what a
# server tells its processes, the tests'.
_OTHERS: Final = ("VECSTORE_CONFIG", "VECSTORE_SIMD", "VECSTORE_API_KEY", "VECSTORE_FIGURES")
_OTHER_PREFIXES: Final = ("VECSTORE_BENCH_", "VECSTORE_TEST_")


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting with its default; each is described in ``docs/configuration.md``."""

    url: Annotated[str, Meta(min_length=1)] = "./data"
    host: Annotated[str, Meta(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8080
    keys_file: str = ""
    key_rate: Annotated[float, Meta(ge=0.0, le=MAX_KEY_RATE)] = 0.0
    allow_remote: bool = False
    workers: Annotated[int, Meta(ge=0, le=1_024)] = 0
    threads: Annotated[int, Meta(ge=1, le=1_024)] = 8
    queue: Annotated[int, Meta(ge=0, le=1_024)] = 64
    queue_seconds: Annotated[float, Meta(gt=0.0, le=3_600.0)] = 0.1
    request_timeout: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 300.0
    graceful_timeout: Annotated[int, Meta(ge=1, le=3_600)] = 30
    max_body_bytes: Annotated[int, Meta(ge=1_024, le=MAX_BODY_BYTES)] = MAX_BODY_BYTES
    cache_bytes: Annotated[int, Meta(ge=0)] = 256 << 20
    cache_dir: str = ""
    disk_cache_bytes: Annotated[int, Meta(ge=64 << 20)] = 10 << 30
    open_namespaces: Annotated[int, Meta(ge=1)] = 1_000
    compaction_bytes: Annotated[int, Meta(ge=LEAST_COMPACTION_BYTES)] = COMPACTION_BYTES
    temp_dir: str = ""
    recall_sample_rate: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0
    maintenance: bool = True
    maintenance_interval: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 10.0
    gc_interval: Annotated[float, Meta(gt=0.0, le=604_800.0)] = 600.0
    gc_retention: Annotated[float, Meta(ge=0.0)] = 3_600.0
    gc_grace: Annotated[float, Meta(ge=0.0)] = 3_600.0
    client_timeout: Annotated[float, Meta(gt=0.0, le=86_400.0)] = 60.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    access_log: bool = False
    slow_query_ms: Annotated[float, Meta(ge=0.0)] = 0.0
    metrics: bool = True
    metrics_namespaces: bool = False
    metrics_dir: str = ""
    maintenance_metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0
    tracing: bool = False
    drain_seconds: Annotated[float, Meta(ge=0.0, le=600.0)] = 0.0

    @property
    def processes(self) -> int:
        """Workers to start; 0 means one a processor that this process may use."""
        return self.workers or _processors()

    @property
    def working(self) -> int:
        """Short searches of a worker that work at once: one a processor that is its share, and one more."""
        return 1 + -(-_processors() // self.processes)

    @property
    def address(self) -> str:
        """``host:port`` as gunicorn reads it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def check_address(self) -> None:
        """`InvalidArgument` if other machines could connect without a key, and nobody said that they may."""
        if not (is_loopback(self.host) or self.keys_file or self.allow_remote):
            raise InvalidArgument(
                f"host {self.host} can be reached from other machines and there is no authentication: "
                "whoever connects may read, write and delete everything. Make a key (vecstore keys create) "
                "and name its file by --keys-file (VECSTORE_KEYS_FILE). Where something in front of the "
                "server authenticates, --allow-remote (VECSTORE_ALLOW_REMOTE=true) allows this without keys",
                field="host",
            )

    @property
    def connect_options(self) -> dict[str, Any]:
        """What `vecstore.api.connect` is told of memory and disk."""
        return {
            "cache_bytes": self.cache_bytes,
            "cache_dir": self.cache_dir or None,
            "disk_cache_bytes": self.disk_cache_bytes,
            "open_namespaces": self.open_namespaces,
            "compaction_bytes": self.compaction_bytes,
            "temp_dir": self.temp_dir or None,
        }

    def environ(self) -> dict[str, str]:
        """Variables that make another process see this configuration."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        return {PREFIX + name.upper(): _text(value) for name, value in values.items()}


def _processors() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_version() -> str:
    """The installed version; "0" in a checkout that was never installed."""
    try:
        return version("vecstore")
    except PackageNotFoundError:
        return "0"


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load_config(
    options: Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Config:
    """Settings from ``options`` (None: not given), then variables, then the file, then defaults.

    Raises
    ------
    InvalidArgument
        A setting is not known or out of bounds, in whichever of them; the message says where.
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    layers = [
        *_from_file(env, folder if folder is not None else Path.cwd()),
        ("the environment", _from_environment(env), False),
        ("the options", given, True),
    ]
    merged: dict[str, Any] = {}
    for source, values, strict in layers:
        try:
            # One layer at a time, so that an error says where the value came from.
            config = msgspec.convert(values, Config, strict=strict)
        except msgspec.ValidationError as error:
            raise _explained(source, error) from error
        merged.update({name: getattr(config, name) for name in values})
    return Config(**merged)


def _from_file(env: Mapping[str, str], folder: Path) -> list[tuple[str, dict[str, Any], bool]]:
    named = env.get("VECSTORE_CONFIG")
    path = Path(named) if named else folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not named:
            return []
        raise InvalidArgument(f"VECSTORE_CONFIG names {path}, which is not there", field="config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", field="config") from error
    try:
        return [(str(path), tomllib.loads(text), True)]
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"{path}: {error}", field="config") from error


def _from_environment(env: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, value in env.items():
        if not name.startswith(PREFIX) or name in _OTHERS or name.startswith(_OTHER_PREFIXES):
            continue
        setting = name.removeprefix(PREFIX).lower()
        if setting not in Config.__struct_fields__:
            raise InvalidArgument(
                f"{name} is no setting of vecstore; docs/configuration.md lists them", field=setting
            )
        if value:
            found[setting] = value
    return found


def _explained(source: str, error: msgspec.ValidationError) -> InvalidArgument:
    text = str(error).replace("`", "")
    text, _, path = text.partition(" - at $.")
    field = path or text.rpartition("field ")[2]
    return InvalidArgument(f"{source}: {field}: {text[:1].lower()}{text[1:]}", field=field)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
