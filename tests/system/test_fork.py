"""A handle that was opened before ``fork`` says so in the child, and goes on working in the parent."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
import numpy as np
import vecstore
from vecstore.errors import ForkedHandle

def refused(call):
    try:
        call()
    except ForkedHandle as error:
        return "connect again" in str(error)
    return False

rows = np.random.default_rng(1).standard_normal((1_000, 256), dtype=np.float32)
db = vecstore.connect(sys.argv[1])
ns = db.create_namespace("docs", dim=256, metric="l2")
ns.insert(rows, ids=np.arange(1_000))
assert ns.search(rows[5]).ids[0] == 5

child = os.fork()
if child == 0:
    calls = (
        lambda: ns.search(rows[5]),
        lambda: ns.insert(rows[:1], ids=[2_000]),
        lambda: ns.delete([1]),
        lambda: ns.get(5),
        lambda: ns.stats(),
        lambda: ns.compact(),
        lambda: ns.gc(),
        lambda: ns.warm(),
        lambda: db.cache_stats(),
        lambda: vecstore.copy_store(db, "memory://"),
        lambda: db.namespace("docs"),
        lambda: db.create_namespace("other", dim=2),
    )
    said = all([refused(call) for call in calls])
    with vecstore.connect(sys.argv[1]) as mine:
        again = mine.namespace("docs")
        works = again.search(rows[5]).ids[0] == 5 and again.insert(rows[:1], ids=[2_001]).n == 1
    db.close()
    os._exit(0 if said and works else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert ns.search(rows[5]).ids[0] == 5
assert ns.stats().rows == 1_001
assert ns.insert(rows[:1], ids=[2_002]).n == 1
db.close()
print("done")
"""


@pytest.mark.parametrize("store_url", ["local", "s3"], indirect=True)
def test_a_forked_handle_says_so_and_a_new_one_works(store_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, store_url], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
