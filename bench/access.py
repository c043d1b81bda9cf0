"""What API keys add to a request: ``python -m bench.access``.

The layer `vecstore.server.access.Access` is called in front of an application that does nothing, with a key
file of a thousand keys, for the plain search, as a worker would call it. One thread, rounds by turns;
microseconds of its processor a request.
"""

from __future__ import annotations

import hashlib
import hmac
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vecstore.keys import Grant, edit_keys, new_key
from vecstore.server.access import Access
from vecstore.server.keyring import Keyring
from vecstore.server.paths import namespace_of
from vecstore.server.rates import Rates

KEYS, CALLS, ROUNDS = 1_000, 5_000, 21
PATH = "/v1/namespaces/acme-docs/search"


def main() -> None:
    made = [new_key((Grant(("read", "write"), "acme-"),), rate=1e6) for _ in range(KEYS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        edit_keys(path, lambda _: tuple(known for _, known in made))
        keyring = Keyring(str(path))
        key, known = made[KEYS // 2]
        header = f"Bearer {key}"
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": PATH,
            "HTTP_AUTHORIZATION": header,
        }

        def nothing(*_: Any) -> list[bytes]:
            return []

        access = Access(nothing, nothing, keyring)
        rates, expected = Rates(), bytes.fromhex(known.digest)
        measured: dict[str, Callable[[], object]] = {
            "an application that does nothing": lambda: nothing(environ, None),
            "behind the layer": lambda: access(environ, nothing),
            "of that: who it is": lambda: keyring.authenticate(header),
            "of that: SHA-256 and comparison": lambda: hmac.compare_digest(
                hashlib.sha256(key.encode()).digest(), expected
            ),
            "of that: how often": lambda: rates.take(known.id, 1e6, 1_000_000),
            "of that: the namespace of the path": lambda: namespace_of(PATH),
        }
        times: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(ROUNDS):
            for name, call in measured.items():
                times[name].append(timeit.timeit(call, timer=time.thread_time, number=CALLS) / CALLS * 1e6)
    for name, values in times.items():
        print(f"{name:<36} least {min(values):6.2f}  median {statistics.median(values):6.2f}")


if __name__ == "__main__":
    main()
