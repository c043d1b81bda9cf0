"""The real nginx with ``deploy/nginx.conf``: only addresses, certificates and folders are others."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.support import eventually, free_port

CONF = Path(__file__).parent.parent.parent / "deploy" / "nginx.conf"
_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_command() -> str:
    """Where nginx is; without it the test is skipped, or fails where `.ci/run` says that it must be there."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        assert "VECSTORE_TEST_NGINX" not in os.environ, "VECSTORE_TEST_NGINX is set, and there is no nginx"
        pytest.skip("no nginx (Debian: apt-get install nginx)")
    return found


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running one: ``url`` speaks TLS, ``plain`` redirects to it."""

    host: str
    port: int
    plain_port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def connect(self, timeout: float = 20.0) -> ssl.SSLSocket:
        """A connection through TLS."""
        raw = socket.create_connection((self.host, self.port), timeout)
        return self.context().wrap_socket(raw, server_hostname=self.host)

    def log(self) -> str:
        return (self.folder / "access.log").read_text()

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def nginx(folder: Path, *backends: str, changes: Mapping[str, str] | None = None) -> Iterator[Nginx]:
    """nginx in front of servers, ``host:port`` each, ready; ended at once.

    Parameters
    ----------
    changes
        Other texts of the configuration: ``{"client_header_timeout 10s": "client_header_timeout 1s"}``.
    """
    command = nginx_command()
    host, port, plain = "127.0.0.1", free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    certify(folder, host)
    conf = folder / "nginx.conf"
    conf.write_text(rendered(CONF.read_text(), folder, (host, port, plain), backends, changes or {}))
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [command, "-p", str(folder), "-c", str(conf), "-g", "daemon off;"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        eventually("nginx listens", lambda: process.poll() is not None or _listens(host, port), 20)
        assert process.poll() is None, log.read_text() + (folder / "error.log").read_text()
        yield Nginx(host, port, plain, folder, process)
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        process.wait(20)


def rendered(
    text: str,
    folder: Path,
    address: tuple[str, int, int],
    backends: tuple[str, ...],
    changes: Mapping[str, str],
) -> str:
    """The configuration as it is delivered, for this machine; what is to be replaced must be there."""
    host, port, plain = address
    line = r"server 127\.0\.0\.1:8080 max_fails=0(.*);"
    each = "".join(rf"server {backend} max_fails=0\1;" for backend in backends)
    servers = (line, each, 8) if len(backends) == 1 else (rf"{line}(\n\s*server .*;)+", each, 3)
    temporary = "".join(f"{name}_temp_path {folder}/{name}; " for name in _FOLDERS)
    replaced = [
        (r"^user www-data;", f"user {getpass.getuser()};\npid {folder}/pid;", 1),
        (r"^http {", f"http {{ {temporary}", 1),
        (r"listen 80 ", f"listen {host}:{plain} ", 1),
        (r"listen 443 ", f"listen {host}:{port} ", 1),
        servers,
        (r"/etc/nginx/tls/fullchain\.pem", f"{folder}/certificate.pem", 1),
        (r"/etc/nginx/tls/privkey\.pem", f"{folder}/key.pem", 1),
        (r"/var/log/nginx/", f"{folder}/", 2),
        *((re.escape(given), new, 1) for given, new in changes.items()),
    ]
    for pattern, new, times in replaced:
        text, done = re.subn(pattern, new, text, flags=re.MULTILINE)
        assert done == times, f"{pattern}: {done} times in {CONF.name}"
    return text


def certify(folder: Path, host: str) -> None:
    """A certificate of our own for ``host``."""
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-nodes", "-days", "2", "-subj", f"/CN={host}", "-addext", f"subjectAltName=IP:{host}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 1).close()
    except OSError:
        return False
    return True
