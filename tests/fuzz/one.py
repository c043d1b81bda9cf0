"""One fuzzing process: what `python -m tests.fuzz` starts for a target, with sanitizers preloaded.

    python -m tests.fuzz.one TARGET --findings FOLDER [options of libFuzzer and folders of inputs]

What Python raises is noted as a finding, and the run goes on; a sanitizer ends it.
"""

from __future__ import annotations

import hashlib
import sys
import time
import traceback
from pathlib import Path
from typing import Final

from tests.fuzz import sanitised

# Modules of Python that guide the fuzzer, beside all extension modules. All of vecstore halves its speed.
SECONDS: Final = 5.0  # of a processor, for one input
GUIDES: Final = {
    "part": (
        "vecstore.part",
        "vecstore.rows.columns",
        "vecstore.rows.directory",
        "vecstore.rows.packing",
        "vecstore.index.recall",
    ),
    "manifest": ("vecstore.manifest", "vecstore.invariants", "vecstore.index.view"),
    "tombstone": ("vecstore.manifest.tombstones", "vecstore.live"),
    "requests": ("vecstore.server", "vecstore.params", "vecstore.rows.given", "vecstore.rows.attributes"),
    "filters": ("vecstore.rows.filters",),
    "kernels": ("vecstore.ext",),
}


def main() -> None:
    name, findings = sys.argv[1], Path(sys.argv[3])
    sanitised.use()
    import atheris

    with atheris.instrument_imports(include=list(GUIDES[name])):
        from tests.fuzz.targets import TARGETS
    sanitised.tight_copies()
    target, seen = TARGETS[name], set[str]()

    def run(data: bytes) -> None:
        began = time.process_time()
        try:
            target(data)
            if time.process_time() - began > SECONDS:
                raise TimeoutError(f"an input took {time.process_time() - began:.1f} seconds")
        except Exception as error:
            where = _where(error)
            if where not in seen:
                seen.add(where)
                _note(findings, where, data, error)

    atheris.Setup([sys.argv[0], *sys.argv[4:]], run)
    atheris.Fuzz()


def _where(error: BaseException) -> str:
    """What an error is and the last place of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}"
        for frame in frames
        if "vecstore/" in frame.filename
    ]
    return f"{type(error).__name__} at {ours[-1] if ours else 'the target'}"


def _note(folder: Path, where: str, data: bytes, error: BaseException) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(where.encode()).hexdigest()[:12]
    (folder / f"raised-{name}").write_bytes(data)
    told = "".join(traceback.format_exception(error))
    (folder / f"raised-{name}.txt").write_text(f"{where}\n\n{told}")
    print(f"FINDING {where}: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
