"""The drill of ``docs/backup.md``, command by command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

import vecstore
from tests.test_readme import ROOT, run

PAGE = (ROOT / "docs" / "backup.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_the_drill_brings_back_what_was_lost(tmp_path: Path) -> None:
    with vecstore.connect(str(tmp_path / "data"), maintenance="off") as db:
        ns = db.create_namespace("docs", 3, "l2")
        ns.insert(np.eye(3, dtype=np.float32).repeat(4, axis=0), range(12), attributes={"n": list(range(12))})
        ns.tag("before")
    first, again, collect, tag, drill, go_on = BLOCKS
    assert "sound" in run(["bash", "-ec", first], tmp_path)
    told = run(["bash", "-ec", again], tmp_path)
    assert re.search(r"docs\tto be copied\t.* 0 parts .* to send, 1 ", told)
    assert re.search(r"docs\tcopied\t", told)
    run(["bash", "-ec", collect + tag], tmp_path)
    with vecstore.connect(str(tmp_path / "data"), maintenance="off") as db:
        ns = db.namespace("docs")
        wanted = [(row.id, row.attributes) for row in ns.scan()]
        then = [row.id for row in ns.scan(epoch=ns.tags()[0].epoch)]
    assert "sound" in run(["bash", "-ec", drill], tmp_path)
    with vecstore.connect(str(tmp_path / "data"), maintenance="off") as db:
        ns = db.namespace("docs")
        assert [(row.id, row.attributes) for row in ns.scan()] == wanted
        epochs = {tag.name: tag.epoch for tag in ns.tags()}
        assert epochs.keys() == {"before", "monday"}
        assert [row.id for row in ns.scan(epoch=epochs["before"])] == then
    assert "docs\t" in run(["bash", "-ec", go_on], tmp_path)


def test_every_file_that_the_page_names_exists() -> None:
    for page in ("backup.md", "compatibility.md", "decisions/0032-copies-between-stores.md"):
        path = ROOT / "docs" / page
        text = path.read_text()
        for name in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (path.parent / name).exists(), f"{page}: {name}"
        for name in re.findall(r"`(tests/[A-Za-z_./-]+\.py)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"
