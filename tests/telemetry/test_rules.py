"""Alert rules and dashboard name figures that a server tells, and only those."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import vecstore
from tests import core
from tests.server.scrape import scrape
from tests.server.support import eventually, running_server
from vecstore.telemetry.metrics import HELP

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
NAME = re.compile(r"\bvecstore_[a-z_0-9]+\b")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in rules():
        yield rule["expr"]
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def test_every_figure_of_rules_and_dashboard_is_told_by_a_server(s3_url: str, tmp_path: Path) -> None:
    """One that does everything: caches, measures recall, compacts and collects."""
    wanted = {name for expression in expressions() for name in NAME.findall(expression)}
    with running_server(
        s3_url,
        "--workers",
        "1",
        VECSTORE_CACHE_DIR=str(tmp_path / "cache"),
        VECSTORE_RECALL_SAMPLE_RATE="1",
        VECSTORE_MAINTENANCE_INTERVAL="0.1",
        VECSTORE_GC_INTERVAL="0.1",
    ) as server:
        with vecstore.connect(server.url) as database:
            ns = database.create_namespace("docs", 8, "l2", **core.CODED)
            ns.insert(core.clustered(core.generator(1), 300, 8))
            for query in np.eye(8, dtype=np.float32):
                ns.search(query)
        missing = set(wanted)

        def all_told() -> bool:
            missing.clear()
            missing.update(wanted - scrape(server.url).names)
            return not missing

        try:
            eventually("every figure is there", all_told)
        except AssertionError:
            raise AssertionError(f"not told: {sorted(missing)}") from None


def test_no_figure_is_without_a_place_on_the_dashboard() -> None:
    shown = "\n".join(expressions())
    assert [name for name in HELP if f"vecstore_{name}" not in shown] == []


def test_every_alert_says_how_urgent_it_is_and_what_it_means() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len(alerts) >= 10
    for alert in alerts:
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_prometheus_takes_the_rules_and_they_fire(tmp_path: Path) -> None:
    """`deploy/alerts.yml`, and series that should and should not make it fire."""
    promtool = shutil.which("promtool")
    assert promtool is not None
    subprocess.run([promtool, "check", "rules", str(DEPLOY / "alerts.yml")], check=True, capture_output=True)
    ok = 'vecstore_http_requests_total{job="vecstore", instance="a", route="/x", status="200"}'
    failed = 'vecstore_http_requests_total{job="vecstore", instance="a", route="/x", status="503"}'
    refused = 'vecstore_http_requests_total{job="vecstore", instance="a", route="/readyz", status="503"}'
    bound = 'vecstore_recall_upper_bound{job="vecstore", instance="a"}'
    swept = 'vecstore_maintenance_swept_timestamp_seconds{job="vecstore", instance="a"}'
    cases = {
        "VecstoreErrors": ({ok: "0+100x60", failed: "0+5x60"}, True),
        "VecstoreErrors, quiet": ({ok: "0+1000x60", failed: "0+1x60"}, False),
        "VecstoreNotReady": ({refused: "0+10x60"}, True),
        "VecstoreRecallLow": ({bound: "0.8x60"}, True),
        "VecstoreRecallLow, quiet": ({bound: "0.97x60"}, False),
        "VecstoreMaintenanceStopped": ({swept: "0x120"}, True),
    }
    for name, (series, fires) in cases.items():
        alert = name.partition(",")[0]
        test = {
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": one, "values": values} for one, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                            "eval_time": "90m" if alert == "VecstoreMaintenanceStopped" else "50m",
                            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                        }
                    ],
                }
            ],
        }
        file = tmp_path / "test.yml"
        file.write_text(yaml.safe_dump(test))
        done = subprocess.run(
            [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (name, done.stdout, done.stderr)
