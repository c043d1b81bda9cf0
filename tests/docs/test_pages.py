"""What the documentation shows runs, and what it says of the code is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.docs.pages import Runner, blocks, fits
from vecstore import errors

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ELSEWHERE = {"integrations.md", "migrating.md", "backup.md"}  # run by tests that look at what they leave
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if "decisions" not in path.parts and path.name not in ELSEWHERE
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_snippet_of_a_page_runs(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = page.read_text(encoding="utf-8")
    environment = {"SAMPLE": str(ROOT / "examples" / "glosses")}
    if "s3://my-bucket" in source and any(block.language in ("python", "sh") for block in blocks(page)):
        bucket: Bucket = request.getfixturevalue("bucket")
        if "my-bucket" not in {found["Name"] for found in bucket.client.list_buckets()["Buckets"]}:
            bucket.client.create_bucket(Bucket="my-bucket")
        environment |= {
            "AWS_ENDPOINT_URL_S3": bucket.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",  # pragma: allowlist secret
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    runner = Runner(page, tmp_path, environment)
    try:
        runner.run()
    finally:
        runner.close()


def test_a_snippet_that_fails_is_named_by_page_and_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nx = 1\n```\n\n```python\nprint(x + y)\n```\n")
    assert [block.line for block in blocks(page)] == [4, 8]
    with pytest.raises(NameError) as raised:
        Runner(page, tmp_path, {}).run()
    assert raised.value.__notes__ == ["in page.md:8"]
    page.write_text("```sh\necho one two\n```\n\n```text\none three\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:6"):
        Runner(page, tmp_path, {}).run()


def test_dots_in_a_shown_output_stand_for_anything() -> None:
    assert fits("took ... ms\n", "took 3.5 ms\n")
    assert not fits("took ... s\n", "took 3.5 ms\n")


def test_the_table_of_errors_is_what_the_code_raises() -> None:
    def kinds(base: type[errors.VecstoreError]) -> set[type[errors.VecstoreError]]:
        return {base}.union(*(kinds(kind) for kind in base.__subclasses__()))

    told = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \| (\d+) \| (yes|no) \|",
        (DOCS / "reference" / "errors.md").read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    ours = {
        (kind.__name__, kind.code, str(kind.status), "yes" if kind.retryable else "no")
        for kind in kinds(errors.VecstoreError)
        if kind.__module__ == "vecstore.errors"
    }
    assert set(told) == ours
    assert len(told) == len(ours)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorial.html").exists()
