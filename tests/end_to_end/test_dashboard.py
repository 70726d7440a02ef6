"""The dashboard of docker/grafana: Grafana understands all of it, and every panel has something to show."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.prometheus import CONFIGURATION, prometheus
from tests.processes import PATIENCE_S, free_port
from tests.server_process import serving

FOLDER = REPOSITORY / "docker/grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "detr.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ADDRESSES = ("127.0.0.2", "127.0.0.3")
# Reads a dashboard into the classes that Grafana's own definitions were made into, and writes it.
ROUND_TRIP = """
import json, sys
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
plugins.register_default_plugins()
for line in sys.stdin:
    print(json.dumps(Dashboard.from_json(json.loads(line)), cls=encoder.JSONEncoder))
"""

RoundTrip = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory: pytest.TempPathFactory) -> RoundTrip:
    """Dashboards as they come back from Grafana's classes, which know no other fields than Grafana's."""
    folder = tmp_path_factory.mktemp("grafana")
    download: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*download, "grafana-foundation-sdk"], check=True)
    (wheel,) = folder.glob("*.whl")

    def through(dashboards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        lines = "\n".join(map(json.dumps, dashboards))
        command = [sys.executable, "-c", ROUND_TRIP]
        # Python imports from a wheel as it is.
        done = subprocess.run(command, env={"PYTHONPATH": str(wheel)}, input=lines, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return through


def lost(before: object, after: object, path: str = "") -> Iterator[str]:
    """Paths of what did not come back as it was. What came on top are defaults."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, part in before.items():
            yield from lost(part, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, part in enumerate(before):
            yield from lost(part, after[number], f"{path}[{number}]")
    elif before != after:
        yield path


@pytest.mark.slow
def test_grafana_knows_every_field_of_the_dashboard(round_trip: RoundTrip) -> None:
    (back,) = round_trip([DASHBOARD])
    assert list(lost(DASHBOARD, back)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        ("uid",),
        ("templating", "list", 1, "refresh"),
        ("panels", 1, "gridPos", "w"),
        ("panels", 1, "targets", 0, "expr"),
        ("panels", 1, "options", "reduceOptions", "calcs"),
        ("panels", 4, "fieldConfig", "defaults", "unit"),
        ("panels", 4, "fieldConfig", "defaults", "custom", "fillOpacity"),
    ],
)
def test_a_misspelt_field_of_the_dashboard_is_caught(round_trip: RoundTrip, path: tuple[str | int, ...]) -> None:
    changed = copy.deepcopy(DASHBOARD)
    parent: Any = changed
    for step in path[:-1]:
        parent = parent[step]
    parent[f"{path[-1]}x"] = parent.pop(path[-1])
    (back,) = round_trip([changed])
    assert [place for place in lost(changed, back) if place.endswith(f"{path[-1]}x")]


def test_panels_have_numbers_and_places_of_their_own_and_tell_replicas_apart() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in PANELS:
        for target in panel["targets"]:
            assert 'job="$job",instance=~"$instance"' in target["expr"]
            assert panel["type"] == "table" or "{{instance}}" in target["legendFormat"]


def test_grafana_finds_prometheus_and_the_dashboard_where_the_compose_file_puts_them() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    grafana = services["grafana"]
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/detr.yml").read_text())["providers"]
    assert source["url"] == "http://prometheus:9090"
    assert set(grafana["networks"]) <= set(services["prometheus"]["networks"])
    interval = yaml.safe_load(CONFIGURATION.read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == interval
    place = provider["options"]["path"]
    assert grafana["volumes"] == [f"./docker/grafana:{place}:ro"]
    assert grafana["environment"]["GF_PATHS_PROVISIONING"] == f"{place}/provisioning"


def test_grafana_has_no_password_and_no_way_in_from_outside() -> None:
    grafana = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["grafana"]
    assert grafana["profiles"] == ["dashboard"], "who does not ask for it does not have it"
    assert [port.split(":")[0] for port in grafana["ports"]] == ["127.0.0.1"]
    assert grafana["environment"]["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert (grafana["read_only"], grafana["cap_drop"], grafana["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )


@pytest.fixture
def replicas(demo: Path, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two services, and the port that both have their metrics on."""
    port, metrics_port = free_port(), free_port()
    with ExitStack() as stack:
        options = ("--batch-timing-ms", "0", "--cpu-threads", "1", "--metrics-port", str(metrics_port))
        servers = [
            stack.enter_context(
                serving(demo, tmp_path, "--host", address, "--metrics-host", address, *options, port=port, wait=False)
            )
            for address in ADDRESSES
        ]
        for server in servers:
            server.wait_for_line("ready")
        yield port, metrics_port


def ask_a_little(port: int, jpeg: bytes) -> None:
    for address in ADDRESSES:
        for path in ("detect", "segment"):
            httpx.post(f"http://{address}:{port}/{path}", files={"image": jpeg}, timeout=PATIENCE_S).raise_for_status()
        refused = httpx.post(f"http://{address}:{port}/detect", files={"image": b"no picture"}, timeout=PATIENCE_S)
        assert refused.status_code in (400, 415)


def shown(url: str, expression: str) -> set[str]:
    """The instances that an expression has a number for, its variables being what Grafana puts there."""
    here = expression.replace("$job", "detr").replace("$instance", ".+").replace("$__rate_interval", "20s")
    assert "$" not in here
    answer = httpx.get(f"{url}/api/v1/query", params={"query": here})
    assert answer.status_code == 200, answer.text
    return {
        series["metric"]["instance"]
        for series in answer.json()["data"]["result"]
        if not math.isnan(float(series["value"][1]))
    }


@pytest.mark.slow
@pytest.mark.root
def test_every_expression_of_every_panel_has_data_of_both_replicas(
    need: Callable[..., None], replicas: tuple[int, int], tmp_path: Path, jpeg: bytes
) -> None:
    need("prometheus", "unshare", root=True)
    port, metrics_port = replicas
    expressions = {target["expr"] for panel in PANELS for target in panel["targets"]}
    (folder := tmp_path / "prometheus").mkdir()
    with prometheus(folder, metrics_port, ADDRESSES) as url:
        deadline = time.monotonic() + PATIENCE_S
        missing = expressions
        while missing:
            assert time.monotonic() < deadline, f"no data of both replicas: {missing}"
            ask_a_little(port, jpeg)
            time.sleep(0.5)
            missing = {expression for expression in missing if len(shown(url, expression)) < len(ADDRESSES)}
