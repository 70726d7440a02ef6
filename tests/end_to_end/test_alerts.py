"""The shipped alerts: promtool plays time series to them and says which fire."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.process.metrics import Metrics
from tests.end_to_end.conftest import REPOSITORY

ALERTS = REPOSITORY / "docker/prometheus/alerts.yml"
GROUPS = yaml.safe_load(ALERTS.read_text())["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}

# By alert: series as promtool writes them, one value a minute, that make it fire within half an hour, and such that
# do not. `a+bx30` begins at a and grows by b thirty times.
Series = dict[str, str]
DETECT = 'detr_requests_total{{job="detr",endpoint="detect",status="{}"}}'.format
UP = 'detr_engine_up{{job="detr",device="{}"}}'.format
SCENES: dict[str, tuple[Series, Series]] = {
    "DetrDown": ({'up{job="detr"}': "1x20 0x10"}, {'up{job="detr"}': "1x30"}),
    "DetrEngineStalled": ({'detr_engine_stalled{job="detr"}': "0x29 1"}, {'detr_engine_stalled{job="detr"}': "0x30"}),
    "DetrEngineDown": (
        {UP("cuda:0"): "1x30", UP("cuda:1"): "1x28 0x2"},
        {UP("cuda:0"): "1x30", UP("cuda:1"): "1x29 0"},
    ),
    "DetrDecoderOverdue": (
        {'detr_decoders_overdue{job="detr"}': "0x28 1x2"},
        {'detr_decoders_overdue{job="detr"}': "0x29 1"},
    ),
    "DetrFailing": (
        {DETECT(200): "0+980x30", DETECT(500): "0+10x30", DETECT(504): "0+10x30"},
        {DETECT(200): "0+980x30", DETECT(500): "0+5x30", DETECT(503): "0+500x30", DETECT(422): "0+500x30"},
    ),
    "DetrRestarting": (
        {'process_start_time_seconds{job="detr"}': "1x20 2x2 3x2 4x6"},
        {'process_start_time_seconds{job="detr"}': "1x20 2x10"},
    ),
    "DetrOverloaded": (
        {DETECT(200): "0+90x30", DETECT(503): "0+10x30"},
        {DETECT(200): "0+99x30", DETECT(503): "0+1x30"},
    ),
    "DetrMemoryRanOut": (
        {'detr_batch_splits_total{job="detr",device="cuda:0",reason="memory"}': "0x25 1x5"},
        {'detr_batch_splits_total{job="detr",device="cuda:0",reason="error"}': "0x25 1x5"},
    ),
    "DetrOverMemoryBudget": (
        {'process_resident_memory_bytes{job="detr"}': "3x30", 'detr_memory_budget_bytes{job="detr"}': "2x30"},
        {'process_resident_memory_bytes{job="detr"}': "1x30", 'detr_memory_budget_bytes{job="detr"}': "2x30"},
    ),
    "DetrEngineReopened": (
        {'detr_engine_reopens_total{job="detr",device="cuda:0",result="failed"}': "0x25 1x5"},
        {'detr_engine_reopens_total{job="detr",device="cuda:0",result="failed"}': "3x30"},
    ),
    "DetrReloadRefused": (
        {'detr_model_reloads_total{job="detr",result="refused"}': "0x25 1x5"},
        {'detr_model_reloads_total{job="detr",result="replaced"}': "0x25 1x5"},
    ),
    "DetrLogLinesDropped": (
        {'detr_log_lines_dropped_total{job="detr"}': "0x25 9x5"},
        {'detr_log_lines_dropped_total{job="detr"}': "9x30"},
    ),
}


def fires(folder: Path, alert: str, series: Series) -> bool:
    """Whether promtool finds that the alert fires after 30 minutes of these series, or that it does not."""
    for expected in (True, False):
        played = {
            "rule_files": [str(ALERTS)],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": name, "values": values} for name, values in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                            "eval_time": "30m",
                            "exp_samples": [{"labels": "{}", "value": 1}] if expected else [],
                        }
                    ],
                }
            ],
        }
        (folder / "played.yml").write_text(yaml.safe_dump(played))
        found = subprocess.run(["promtool", "test", "rules", folder / "played.yml"], capture_output=True, check=False)
        if found.returncode == 0:
            return expected
    raise AssertionError(found.stderr.decode())


@pytest.mark.parametrize("alert", SCENES)
def test_an_alert_fires_when_it_should_and_only_then(need: Callable[..., None], tmp_path: Path, alert: str) -> None:
    need("promtool")
    bad, good = SCENES[alert]
    assert fires(tmp_path, alert, bad)
    assert not fires(tmp_path, alert, good)


def test_the_service_is_down_where_no_replica_is_found(need: Callable[..., None], tmp_path: Path) -> None:
    need("promtool")
    assert fires(tmp_path, "DetrDown", {'up{job="prometheus"}': "1x30"})


SICK = 'detr_requests_total{{job="detr",endpoint="detect",status="{}",instance="sick"}}'.format
WELL = 'detr_requests_total{job="detr",endpoint="detect",status="200",instance="well"}'


def test_images_that_fail_in_requests_of_several_are_failures(need: Callable[..., None], tmp_path: Path) -> None:
    need("promtool")
    failed = 'detr_failed_images_total{{job="detr",reason="x",status="{}"}}'
    assert fires(tmp_path, "DetrFailing", {DETECT(200): "0+900x30", failed.format(500): "0+20x30"})
    assert not fires(tmp_path, "DetrFailing", {DETECT(200): "0+900x30", failed.format(400): "0+90x30"})


@pytest.mark.parametrize(("alert", "status"), [("DetrFailing", 500), ("DetrOverloaded", 503)])
def test_replicas_that_are_well_do_not_hide_one_that_is_not(
    need: Callable[..., None], tmp_path: Path, alert: str, status: int
) -> None:
    need("promtool")
    assert fires(tmp_path, alert, {SICK(status): "0+10x30", SICK(200): "0+90x30", WELL: "0+9000x30"})


def test_an_alert_says_which_replica_it_is() -> None:
    for name, rule in RULES.items():
        summary = rule["annotations"]["summary"]
        assert "$labels.instance" in summary or name == "DetrDown", f"{name} may have no replica to name"
        assert not re.search(r"sum *\(", rule["expr"]), "a sum without `by (instance)` has lost it"


def test_every_alert_has_a_scene_and_a_paragraph_of_what_to_do() -> None:
    assert SCENES.keys() == RULES.keys()
    told = (REPOSITORY / "docs/operations.md").read_text()
    assert set(re.findall(r"`(Detr\w+)`", told)) == RULES.keys()
    for rule in RULES.values():
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_alerts_and_operators_page_speak_of_metrics_that_exist() -> None:
    exposed = set(re.findall(r"^# TYPE (\w+) ", Metrics().text().decode(), re.MULTILINE))
    of_alerts = set(re.findall(r"\b((?:detr|process)_\w+)", " ".join(rule["expr"] for rule in RULES.values())))
    of_page = set(re.findall(r"`(detr_\w+)", (REPOSITORY / "docs/operations.md").read_text()))
    assert of_alerts
    assert of_alerts <= exposed
    assert of_page <= exposed
    assert {name for name in exposed if name.startswith("detr_")} <= of_page, "the page leaves metrics out"


def test_counters_that_alerts_watch_begin_at_zero() -> None:
    """The first of them would be missed where a series begins at one: there is nothing it has increased from."""
    metrics = Metrics()
    metrics.of_device("cuda:0")  # which a service does before it lets anybody in
    samples = re.findall(r"^(\w+)(?:{([^}]*)})? 0\.0$", metrics.text().decode(), re.MULTILINE)
    watched = {
        (name, labels.replace('job="detr",', ""))
        for bad, _ in SCENES.values()
        for name, labels in (re.fullmatch(r"(\w+){(.*)}", series).groups() for series in bad)  # type: ignore[union-attr]
        if name.endswith("_total") and "requests" not in name
    }
    assert {(name, "" if labels == 'job="detr"' else labels) for name, labels in watched} <= set(samples)
