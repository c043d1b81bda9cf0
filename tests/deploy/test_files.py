"""The files of ``deploy/``: valid by their own schemas, and in step with the settings of the server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.support import certify, nginx_command, rendered
from vecstore.config import Config, load_config
from vecstore.limits import MAX_BODY_BYTES
from vecstore.server.admission import HELD_REFUSALS
from vecstore.server.gunicorn_conf import SPARE_THREADS, settings

ROOT = Path(__file__).parent.parent.parent
INSTALLED = "/opt/vecstore/bin/vecstore"
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
NGINX = (DEPLOY / "nginx.conf").read_text()
KUBERNETES = "1.31"
MALLOC = "GLIBC_TUNABLES=glibc.malloc.tcache_count=0"
# What boto3 reads of the environment, as far as our examples name it.
BOTO3 = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_CA_BUNDLE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
}


def check_settings(env: dict[str, str]) -> None:
    """Each is a setting, and its value one that it takes."""
    load_config(env=env, folder=ROOT / "none")


@pytest.mark.parametrize("path", sorted((DEPLOY / "examples").glob("*.env")), ids=lambda path: path.stem)
def test_an_example_of_an_environment_names_settings_that_exist(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    env = dict(line.split("=", 1) for line in lines)
    check_settings({name: value for name, value in env.items() if name.startswith("VECSTORE_")})
    assert env["VECSTORE_URL"].startswith("s3://")
    assert {name for name in env if not name.startswith("VECSTORE_")} <= BOTO3


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_is_valid_and_sets_what_exists(path: Path, tmp_path: Path) -> None:
    text = path.read_text()
    named = dict(re.findall(r"(VECSTORE_[A-Z_]+)=(\S+)", text))
    check_settings(named)
    (stop,) = re.findall(r"TimeoutStopSec=([0-9]+)", text)
    if "vecstore serve" in text:
        assert int(stop) > Config().graceful_timeout
        assert f"Environment={MALLOC}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    here = tmp_path / path.name
    here.write_text(text.replace(INSTALLED, sys.executable))
    for other in UNITS:
        if other != path:
            (tmp_path / other.name).write_text(other.read_text().replace(INSTALLED, sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(here)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for one in yaml.safe_load_all(path.read_text()):
            yield f"{path.stem}: {one['kind']}", one


@pytest.mark.parametrize("resource", [pytest.param(one, id=name) for name, one in resources()])
def test_a_manifest_is_valid(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def deployments() -> list[dict[str, Any]]:
    return [one for _, one in resources() if one["kind"] == "Deployment"]


def test_containers_are_confined_and_bounded_and_set_what_exists() -> None:
    assert len(deployments()) == 2
    for deployment in deployments():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["enableServiceLinks"] is False
        for container in pod["containers"]:
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"]
            assert not confined["allowPrivilegeEscalation"]
            assert confined["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= set(container["resources"])
            check_settings({one["name"]: one["value"] for one in container.get("env", [])})
            mounted = {one["name"] for one in container["volumeMounts"]}
            assert mounted <= {one["name"] for one in pod["volumes"]}


def test_pods_end_later_than_the_server_and_are_asked_what_means_something() -> None:
    (server,) = [one for one in deployments() if one["metadata"]["name"] == "vecstore"]
    pod = server["spec"]["template"]["spec"]
    (vecstore,) = [one for one in pod["containers"] if one["name"] == "vecstore"]
    pause = int(vecstore["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + Config().graceful_timeout
    asked = {probe: vecstore[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")}
    assert asked == {"readinessProbe": "/readyz", "livenessProbe": "/healthz"}


def test_the_container_file_has_nothing_to_complain_of() -> None:
    assert f"    {MALLOC} \\\n" in (DEPLOY / "Containerfile").read_text()
    command = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([command, DEPLOY / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def numbers(directive: str) -> list[int]:
    return [int(found) for found in re.findall(rf"\b{directive}[ =]([0-9]+)", NGINX)]


def test_the_numbers_of_nginx_fit_those_of_the_server() -> None:
    gunicorn, config = settings(Config(workers=2)), Config()
    assert numbers("client_max_body_size") == [MAX_BODY_BYTES >> 20]
    assert str(MAX_BODY_BYTES) in NGINX  # in the message of a 413
    assert numbers("proxy_read_timeout")[0] > config.request_timeout
    kept_by_nginx = int(re.findall(r"keepalive_timeout ([0-9]+)s;\s+# less than", NGINX)[0])
    assert kept_by_nginx < gunicorn["keepalive"]
    assert sum(numbers("max_conns")[:4]) == 2 * (config.threads + config.queue + SPARE_THREADS)
    held = HELD_REFUSALS * config.queue
    assert gunicorn["threads"] == config.threads + config.queue + held + SPARE_THREADS
    assert gunicorn["worker_connections"] > sum(numbers("max_conns"))


def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    certify(tmp_path, "127.0.0.1")
    conf = tmp_path / "nginx.conf"
    conf.write_text(rendered(NGINX, tmp_path, ("127.0.0.1", 1, 2), ("127.0.0.1:3",), {}))
    done = subprocess.run(
        [nginx_command(), "-t", "-p", str(tmp_path), "-c", str(conf)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[warn]" not in done.stderr, done.stderr
