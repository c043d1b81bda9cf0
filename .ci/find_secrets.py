"""Ends with status 1 if a file of git seems to hold a secret. A line may say ``pragma: allowlist secret``.

detect-secrets looks; no service is asked whether what it found is live. What only looks random is not looked
for: digests, ids and vectors do too. Nor is what has no lines of text, and what a benchmark wrote.
"""

from __future__ import annotations

import subprocess
import sys

from detect_secrets import SecretsCollection
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.settings import transient_settings

NO_TEXT = (".gz", ".npy", ".png")
FIGURES = "bench/results/"


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    kinds = [kind.__name__ for kind in get_mapping_from_secret_type_to_class().values()]
    settings = {"plugins_used": [{"name": kind} for kind in kinds if not kind.endswith("HighEntropyString")]}
    found = SecretsCollection()
    with transient_settings(settings):
        for name in listed.split("\0")[:-1]:
            if not name.endswith(NO_TEXT) and not name.startswith(FIGURES):
                found.scan_file(name)
    for name, secret in found:
        print(f"{name}:{secret.line_number}: {secret.type}")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
