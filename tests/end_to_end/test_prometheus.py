"""A real Prometheus, with the compose file's configuration, scrapes a real service."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.prometheus import CONFIGURATION, prometheus, query, wait_until_query
from tests.processes import free_port
from tests.server_process import serving


@pytest.fixture
def metrics_port() -> int:
    return free_port()


def test_promtool_accepts_the_configuration(need: Callable[..., None]) -> None:
    need("promtool")
    subprocess.run(["promtool", "check", "config", CONFIGURATION], check=True, capture_output=True)


def test_every_replica_of_the_compose_service_is_a_target() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    (job,) = yaml.safe_load(CONFIGURATION.read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["type"]) == (["detr"], "A")
    environment = services["detr"]["environment"]
    assert (environment["DETR_METRICS_HOST"], environment["DETR_METRICS_PORT"]) == ("0.0.0.0", found["port"])
    assert set(services["detr"]["networks"]) <= set(services["prometheus"]["networks"])
    assert f"./{CONFIGURATION.parent.relative_to(REPOSITORY)}:/etc/prometheus:ro" in services["prometheus"]["volumes"]


@pytest.fixture
def service(tmp_path: Path, demo: Path, metrics_port: int) -> Iterator[str]:
    """Address of a running service with the demo model, whose metrics are on a port of their own."""
    with serving(demo, tmp_path, "--metrics-port", str(metrics_port)) as server:
        yield server.url


@pytest.fixture
def prometheus_url(need: Callable[..., None], tmp_path: Path, metrics_port: int) -> Iterator[str]:
    """Address of a running Prometheus with an empty database."""
    need("prometheus", "unshare", root=True)
    with prometheus(tmp_path, metrics_port) as url:
        yield url


@pytest.mark.slow
def test_a_real_prometheus_has_taken_the_alerts(prometheus_url: str) -> None:
    (group,) = httpx.get(f"{prometheus_url}/api/v1/rules").raise_for_status().json()["data"]["groups"]
    assert "DetrDown" in [rule["name"] for rule in group["rules"]]


@pytest.mark.slow
def test_a_real_prometheus_sees_the_service_and_its_requests(prometheus_url: str, service: str, jpeg: bytes) -> None:
    wait_until_query(prometheus_url, 'up{job="detr"}', [1])
    for _ in range(3):
        httpx.post(f"{service}/detect", files={"image": jpeg}, timeout=30).raise_for_status()
    wait_until_query(prometheus_url, 'sum(detr_request_duration_seconds_count{endpoint=~".*detect"})', [3])
    (duration,) = query(prometheus_url, 'sum(detr_request_duration_seconds_sum{endpoint=~".*detect"})')
    assert duration > 0
