"""Prints what the package brings along, extras for its users too, as ``name==version``."""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement

EXTRAS = {"dev", "bench", "fuzz"}  # for whoever works on it


def brought(package: str, extras: frozenset[str], found: dict[str, str]) -> None:
    for line in requires(package) or ():
        asked = Requirement(line)
        if asked.marker and not any(asked.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            continue
        name = re.sub(r"[-_.]+", "-", asked.name).lower()
        if name not in found:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                sys.exit(
                    f"{package} brings {name}, which is not installed here: the extra dev must bring it too"
                )
            brought(name, frozenset(asked.extras), found)


def main() -> None:
    offered = frozenset(metadata("vecstore").get_all("Provides-Extra") or ()) - EXTRAS
    found: dict[str, str] = {}
    brought("vecstore", offered, found)
    for name, there in sorted(found.items()):
        print(f"{name}=={there}")


if __name__ == "__main__":
    main()
