"""Figures as the library reads them, and what is left of processes that have ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests import core
from tests.server.scrape import Scrape, parse
from vecstore.api import Database
from vecstore.engine.database import EmbeddedDatabase
from vecstore.observe import Observer
from vecstore.telemetry import shared
from vecstore.telemetry.metrics import COUNTERS, GAUGES, HELP, Metrics

DOCS = Path(__file__).parent.parent.parent / "docs" / "observability.md"
ENDED = 4_194_305  # beyond what Linux gives to a process


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path))
    return tmp_path


def work(metrics: Metrics) -> None:
    """A bit of everything."""
    metrics.began()
    metrics.answered("/a", "GET", "200", None, 0.004)
    for kind in ("get", "put"):
        request = metrics.request(kind, "key")  # type: ignore[arg-type]
        request.done(sent=3, received=5)
    for what in COUNTERS:
        metrics.count(what, 2)
    metrics.count("batch_queries", 7)
    for held in GAUGES:
        metrics.hold(held, 10)
    metrics.compacted(20.0)


def told(metrics: Metrics) -> Scrape:
    return parse(metrics.text().decode())


def test_processes_add_up(folder: Path) -> None:
    one, two = Metrics(folder, process=1), Metrics(folder, process=2)
    work(one)
    work(two)
    for metrics in (one, two):
        found = told(metrics)
        assert found.value("commits_total") == 4
        assert found.value("search_queries_total", kind="batch") == 14
        assert found.value("storage_bytes_total", direction="received") == 20
        assert found.value("http_request_seconds_bucket", route="/a", method="GET", le="0.0025") == 0
        assert found.value("http_request_seconds_bucket", route="/a", method="GET", le="0.005") == 2
        assert found.value("compaction_seconds_sum") == 40
        assert (found.value("cache_bytes"), found.value("disk_cache_bytes")) == (20, 10)


def test_refusals_are_counted_and_are_no_latencies(folder: Path) -> None:
    metrics = Metrics(folder)
    for status, seconds in (("200", 0.004), ("429", 0.5), ("503", 0.1)):
        metrics.began()
        metrics.answered("/a", "GET", status, None, seconds)
    found = told(metrics)
    assert found.value("http_requests_total", route="/a", method="GET", status="429", namespace="") == 1
    assert found.value("http_request_seconds_count", route="/a", method="GET") == 2


def test_a_process_that_ended_leaves_its_counts_and_nothing_that_it_held(folder: Path) -> None:
    gone, here = Metrics(folder, process=ENDED), Metrics(folder, process=os.getpid())
    work(gone)
    gone.began()
    before = len(list(folder.glob("*.db")))
    shared.retire(ENDED)
    shared.retire(ENDED)  # no more is left to add
    work(here)
    assert told(here).value("commits_total") == 4
    assert told(here).value("compaction_seconds_count") == 2
    assert told(here).value("cache_bytes") == 10
    assert told(here).value("http_requests_in_flight") == 0
    assert told(here).value("maintenance_swept_timestamp_seconds") == 10
    after = [path.name for path in folder.glob("*.db")]
    assert len(after) <= before + 3
    assert not any(f"_{ENDED}" in name for name in after)


def test_figures_begin_with_a_server_but_for_processes_that_live(folder: Path) -> None:
    work(Metrics(folder, process=ENDED))
    work(Metrics(folder, process=os.getpid()))
    shared.share(str(folder))
    metrics = Metrics(folder, process=ENDED + 1)
    assert told(metrics).value("commits_total") == 2


def test_what_a_killed_server_left_behind_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os; from vecstore.telemetry.shared import share; print(share(), flush=True); input()"
    monkeypatch.delenv(shared.VARIABLE, raising=False)

    def start() -> tuple[subprocess.Popen[str], Path]:
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        return process, Path(process.stdout.readline().strip())

    first, left = start()
    second, kept = start()
    assert left.is_dir()
    first.kill()
    first.communicate()
    third, last = start()
    assert not left.exists()
    assert kept.is_dir()
    for process in (second, third):
        process.kill()
        process.communicate()
    for path in (kept, last):
        monkeypatch.setenv(shared.VARIABLE, str(path))
        shared.remove()
        assert not path.exists()


def test_a_folder_that_was_named_is_not_removed(folder: Path) -> None:
    shared.share(str(folder))
    shared.remove()
    assert folder.is_dir()


def test_a_search_is_counted_as_it_tells_itself(folder: Path) -> None:
    metrics = Metrics(folder)
    ns = Database(EmbeddedDatabase(core.RangeStore(), observer=metrics)).create_namespace(
        "docs", 8, "l2", **core.CODED
    )
    rows = core.clustered(core.generator(1), 600, 8)
    for some in (rows[:300], rows[300:]):
        ns.insert(some, attributes=[{"even": i % 2} for i in range(300)])
    told_of = [
        ns.search(row, debug=True, filter=given).debug or {}
        for row in rows[:20]
        for given in (None, ["even", "Eq", 1])
    ]
    found = told(metrics)
    assert found.value("search_rows_scanned_total") == sum(one["rows_scanned"] for one in told_of)
    lists = sum(part["probed"] for one in told_of for part in one["parts"])
    assert found.value("search_lists_probed_total") == lists
    pages = sum(one["storage"]["cache_hits"] for one in told_of)
    assert found.value("cache_hits_total") == pages
    assert found.value("search_stage_seconds_count", stage="scan") == len(told_of)
    assert found.value("search_stage_seconds_count", stage="fetch") >= 1
    kernels = sum(sum(one["seconds"].values()) for one in told_of)
    stages = [found.value("search_stage_seconds_sum", stage=stage) for stage in ("scan", "rerank")]
    assert sum(stages) == pytest.approx(kernels)


def test_the_docs_have_every_figure_and_no_other(folder: Path) -> None:
    metrics = Metrics(folder)
    work(metrics)
    families = text_string_to_metric_families(metrics.text().decode())
    kinds = {family.name: family.type for family in families}
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `vecstore_")
    ]
    documented = {row[0].strip("`").removesuffix("_total"): row[1] for row in rows}
    assert documented == kinds
    assert {name.removeprefix("vecstore_") for name in kinds} == set(HELP)


def test_an_observer_that_overrides_nothing_hears_and_does_nothing() -> None:
    observer = Observer()
    assert observer.request("get", "key") is None
    assert observer.search("docs", None) is None  # type: ignore[arg-type]
    observer.count("commits")
    observer.hold("cache_bytes", 1)
