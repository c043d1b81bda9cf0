"""Settings: which source wins, what is refused, and that the docs list every one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from vecstore.config import Config, is_loopback, load_config
from vecstore.errors import InvalidArgument

DOCS = Path(__file__).parent.parent / "docs" / "configuration.md"


def test_options_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "vecstore.toml").write_text('port = 1\nworkers = 1\nthreads = 1\nhost = "::1"\n')
    env = {"VECSTORE_PORT": "2", "VECSTORE_WORKERS": "2", "HOME": "/"}
    config = load_config({"port": 3, "url": None}, env=env, folder=tmp_path)
    assert (config.port, config.workers, config.threads, config.host) == (3, 2, 1, "::1")
    assert (config.url, config.gc_grace) == ("./data", 3600.0)


def test_an_option_that_equals_the_default_still_wins(tmp_path: Path) -> None:
    assert load_config({"port": 8080}, env={"VECSTORE_PORT": "2"}, folder=tmp_path).port == 8080


def test_the_file_can_be_named_and_must_then_be_there(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_text("gc_interval = 5")
    assert load_config(env={"VECSTORE_CONFIG": str(path)}, folder=tmp_path).gc_interval == 5.0
    with pytest.raises(InvalidArgument, match=r"none\.toml"):
        load_config(env={"VECSTORE_CONFIG": str(tmp_path / "none.toml")}, folder=tmp_path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        load_config(env={"VECSTORE_CONFIG": str(tmp_path)}, folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("colour = 1", "colour"),
        ('port = "8080"', "port"),
        ("port = 70000", "port"),
        ("workers = true", "workers"),
        ("maintenance = 1", "maintenance"),
        ('log_level = "loud"', "log_level"),
        ("port = ", "config"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, field: str) -> None:
    (tmp_path / "vecstore.toml").write_text(text)
    with pytest.raises(InvalidArgument, match=r"vecstore\.toml") as caught:
        load_config(env={}, folder=tmp_path)
    assert caught.value.details["field"] == field


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [
        ("VECSTORE_COLOUR", "red", "colour"),
        ("VECSTORE_PORT", "tcp://10.0.0.1:8080", "port"),
        ("VECSTORE_PORT", "-1", "port"),
        ("VECSTORE_MAINTENANCE", "perhaps", "maintenance"),
        ("VECSTORE_GC_GRACE", "nan", "gc_grace"),
    ],
)
def test_a_bad_variable_is_refused_by_name(tmp_path: Path, name: str, value: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        load_config(env={name: value}, folder=tmp_path)
    assert caught.value.details["field"] == field


def test_variables_of_others_are_left_alone(tmp_path: Path) -> None:
    env = {
        "VECSTORE_SIMD": "serial",
        "VECSTORE_API_KEY": "vs_x",  # pragma: allowlist secret
        "VECSTORE_BENCH_DATA": "x",
        "VECSTORE_TEST_S3": "y",
        "VECSTORE_PORT": "",
    }
    assert load_config(env=env, folder=tmp_path) == Config()


def test_another_process_sees_the_same_configuration(tmp_path: Path) -> None:
    config = Config(url="s3://b/p", allow_remote=True, gc_grace=1.5, port=0, log_level="debug")
    assert load_config(env=config.environ(), folder=tmp_path) == config


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_leave(host: str) -> None:
    assert is_loopback(host)
    Config(host=host).check_address()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_addresses_need_keys_or_leave(host: str) -> None:
    with pytest.raises(InvalidArgument, match="no authentication"):
        Config(host=host).check_address()
    Config(host=host, keys_file="keys.json").check_address()
    Config(host=host, allow_remote=True).check_address()


def test_addresses_and_processes_are_as_gunicorn_wants_them() -> None:
    assert Config(host="::1", port=1).address == "[::1]:1"
    assert Config(workers=3).processes == 3
    assert Config().processes >= 1
    assert Config().working == 2  # a processor each, and one more
    assert Config(workers=1).working == 1 + Config().processes
    assert Config(workers=1_000).working == 2


def test_the_docs_list_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", DOCS.read_text(), re.MULTILINE)
    listed = {name: json.loads(default) for name, default in rows}
    assert listed == msgspec.to_builtins(Config())
    assert [name for name, _ in rows] == list(Config.__struct_fields__)
