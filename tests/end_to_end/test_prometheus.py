"""A real Prometheus, with the compose file's configuration, scrapes a real service."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.end_to_end.conftest import REPOSITORY
from tests.processes import free_port, running
from tests.server_process import serving

CONFIGURATION = REPOSITORY / "docker/prometheus/prometheus.yml"


@pytest.fixture
def configuration(tmp_path: Path, metrics_port: int) -> Path:
    """The shipped configuration, with an address on this machine for the one in the compose network."""
    shipped = CONFIGURATION.read_text()
    assert shipped.count("detr:8001") == 1
    path = tmp_path / "prometheus.yml"
    shutil.copy(CONFIGURATION.parent / "alerts.yml", tmp_path)
    path.write_text(shipped.replace("detr:8001", f"127.0.0.1:{metrics_port}"))
    return path


@pytest.fixture
def metrics_port() -> int:
    return free_port()


def query(prometheus: str, expression: str) -> list[float]:
    """Values of the series that an instant query finds."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).raise_for_status().json()
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def wait_until_query(prometheus: str, expression: str, expected: list[float]) -> None:
    deadline = time.monotonic() + 30
    while (found := query(prometheus, expression)) != expected:
        assert time.monotonic() < deadline, f"{expression} is {found}, not {expected}"
        time.sleep(0.5)


def test_promtool_accepts_the_configuration(need: Callable[..., None]) -> None:
    need("promtool")
    subprocess.run(["promtool", "check", "config", CONFIGURATION], check=True, capture_output=True)


@pytest.mark.slow
def test_a_real_prometheus_has_taken_the_alerts(prometheus: str) -> None:
    (group,) = httpx.get(f"{prometheus}/api/v1/rules").raise_for_status().json()["data"]["groups"]
    assert "DetrDown" in [rule["name"] for rule in group["rules"]]


def test_the_scraped_target_is_the_compose_service() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    (job,) = yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]
    (config,) = job["static_configs"]
    assert config["targets"] == ["detr:8001"]
    environment = services["detr"]["environment"]
    assert (environment["DETR_METRICS_HOST"], environment["DETR_METRICS_PORT"]) == ("0.0.0.0", 8001)
    assert set(services["detr"]["networks"]) <= set(services["prometheus"]["networks"])
    assert f"./{CONFIGURATION.parent.relative_to(REPOSITORY)}:/etc/prometheus:ro" in services["prometheus"]["volumes"]


@pytest.fixture
def service(tmp_path: Path, demo: Path, metrics_port: int) -> Iterator[str]:
    """Address of a running service with the demo model, whose metrics are on a port of their own."""
    with serving(demo, tmp_path, "--metrics-port", str(metrics_port)) as server:
        yield server.url


@pytest.fixture
def prometheus(need: Callable[..., None], tmp_path: Path, configuration: Path) -> Iterator[str]:
    """Address of a running Prometheus with an empty database."""
    need("prometheus")
    url = f"http://127.0.0.1:{(port := free_port())}"
    storage = f"--storage.tsdb.path={tmp_path / 'data'}"
    listen = f"--web.listen-address=127.0.0.1:{port}"
    command = ["prometheus", f"--config.file={configuration}", storage, listen]
    with running(command, f"{url}/-/ready", tmp_path / "prometheus.log"):
        yield url


@pytest.mark.slow
def test_a_real_prometheus_sees_the_service_and_its_requests(prometheus: str, service: str, jpeg: bytes) -> None:
    wait_until_query(prometheus, 'up{job="detr"}', [1])
    for _ in range(3):
        httpx.post(f"{service}/detect", files={"image": jpeg}, timeout=30).raise_for_status()
    wait_until_query(prometheus, 'sum(detr_request_duration_seconds_count{endpoint=~".*detect"})', [3])
    (duration,) = query(prometheus, 'sum(detr_request_duration_seconds_sum{endpoint=~".*detect"})')
    assert duration > 0
