"""Two replicas in a real Ray Serve: they answer as the service does, and go on whatever becomes of one of them.

Ray's ports listen on every address, so it runs where there is no network but a loopback.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.load import Load
from tests.end_to_end.nginx import nginx
from tests.end_to_end.podman import network_of_its_own
from tests.processes import until
from tests.ray_cluster import RayServe, ray_serve

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

ADMIN = {"x-api-key": "a-key-of-the-admins"}
CLIENTS = 4
LONG_S = 300  # for a loaded machine


@pytest.fixture(scope="module")
def model(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo model, which a test may replace."""
    return Path(shutil.copy(demo, tmp_path_factory.mktemp("model") / "model.onnx"))


@pytest.fixture(scope="module")
def settings(model: Path) -> dict[str, Any]:
    (model.parent / "admins").write_text(ADMIN["x-api-key"])
    keys = model.parent / "admins"
    return {"model": model, "device": "cpu", "batch_timing_ms": 0, "admin_keys_file": keys, "drain_timeout_ms": 5000}


@pytest.fixture(scope="module")
def ray(need: Callable[..., None]) -> Iterator[RayServe]:
    need("ip", "unshare", root=True)
    if find_spec("ray") is None:
        pytest.skip("needs Ray, the extra `ray`")
    with network_of_its_own(), ray_serve() as ray:
        yield ray


@pytest.fixture
def two(ray: RayServe, settings: dict[str, Any]) -> RayServe:
    """Two replicas that are ready."""
    assert ray.deploy(settings, num_replicas=2)["status"] == "RUNNING"
    until(lambda: len(ray.replicas()) == 2 and ray.status()["replicas"] == {"RUNNING": 2}, LONG_S, pause_s=0.5)
    return ray


def detect(ray: RayServe, picture: bytes, **headers: str) -> httpx.Response:
    headers = {"content-type": "image/jpeg", **headers}
    return httpx.post(f"{ray.url}/detect", content=picture, headers=headers, timeout=LONG_S)


def by_replica(ray: RayServe, metric: str, **labels: str) -> dict[str, float]:
    """The samples of a metric with these labels, by the replica's name."""
    text = httpx.get(f"{ray.url}/metrics", timeout=LONG_S).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {
        sample.labels["replica"]: sample.value
        for sample in samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    }


def test_both_replicas_answer_and_their_metrics_and_log_lines_tell_of_it(two: RayServe, jpeg: bytes) -> None:
    answers = [detect(two, jpeg, **{"x-request-id": f"mine-{number}"}) for number in range(12)]
    assert [answer.status_code for answer in answers] == [200] * 12
    assert len({answer.text for answer in answers}) == 1
    assert [answer.headers.get_list("x-request-id") for answer in answers] == [[f"mine-{n}"] for n in range(12)]
    counts = by_replica(two, "detr_requests_total", endpoint="detect", status="200")
    assert len(by_replica(two, "detr_model_info")) == 2
    assert sum(counts.values()) == 12
    until(lambda: {f"mine-{number}" for number in range(12)} <= {line.get("request_id") for line in two.lines()})


def test_behind_the_proxy_a_request_has_one_sane_id(
    need: Callable[..., None], two: RayServe, jpeg: bytes, tmp_path: Path
) -> None:
    """Alone, Ray repeats in its answers whatever the client calls its request."""
    need("nginx", root=True)
    with nginx(tmp_path, int(two.url.rpartition(":")[2]), {}) as port:
        url = f"http://127.0.0.1:{port}"
        for given in ("a b", "x" * 65, "mine"):
            refused = httpx.get(f"{url}/nowhere", headers={"x-request-id": given}, timeout=LONG_S)
            assert refused.headers.get_list("x-request-id") == [refused.json()["error"]["request_id"]]
            assert (refused.headers["x-request-id"] == given) == (given == "mine")
        answer = httpx.post(f"{url}/detect", content=jpeg, headers={"content-type": "image/jpeg"}, timeout=LONG_S)
        assert answer.status_code == 200


def test_a_reload_reaches_every_replica(two: RayServe, model: Path) -> None:
    before = by_replica(two, "detr_model_reloads_total", result="replaced")
    assert httpx.post(f"{two.url}/model/reload", timeout=LONG_S).status_code == 401
    answer = httpx.post(f"{two.url}/model/reload", headers=ADMIN, timeout=LONG_S)
    assert answer.status_code == 200, answer.text
    after = by_replica(two, "detr_model_reloads_total", result="replaced")
    assert after == {name: count + 1 for name, count in before.items()}

    whole = model.read_bytes()
    model.write_bytes(whole[:1000])
    refused = httpx.post(f"{two.url}/model/reload", headers=ADMIN, timeout=LONG_S)
    model.write_bytes(whole)
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "model_refused")
    assert set(by_replica(two, "detr_model_reloads_total", result="refused").values()) == {1.0}


def test_a_killed_replica_loses_its_own_requests_and_is_replaced(two: RayServe, jpeg: bytes) -> None:
    killed, survivor = two.replicas()
    with Load(f"{two.url}/detect", jpeg, CLIENTS) as load:
        until(lambda: load.outcomes.get("200", 0) >= 20, LONG_S)
        killed.kill()
        until(lambda: len({each.pid for each in two.replicas()} - {killed.pid}) == 2, LONG_S, pause_s=0.5)
        until(lambda: two.status()["replicas"] == {"RUNNING": 2}, LONG_S, pause_s=0.5)
        so_far = load.total
        until(lambda: load.total >= so_far + 20, LONG_S)
    lost = {outcome: count for outcome, count in load.outcomes.items() if outcome != "200"}
    # A client has one request under way.
    assert sum(lost.values()) <= CLIENTS, load.outcomes
    assert survivor.is_running()


def test_replicas_come_and_go_with_the_load_and_every_request_is_answered(
    ray: RayServe, settings: dict[str, Any], jpeg: bytes
) -> None:
    scaling = {
        "min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1,
        "upscale_delay_s": 1, "downscale_delay_s": 3, "metrics_interval_s": 1, "look_back_period_s": 2,
    }  # fmt: skip
    assert ray.deploy(settings, num_replicas="auto", autoscaling_config=scaling)["status"] == "RUNNING"
    until(lambda: ray.status()["replicas"] == {"RUNNING": 1}, LONG_S, pause_s=0.5)
    with Load(f"{ray.url}/detect", jpeg, CLIENTS) as load:
        until(lambda: ray.status()["replicas"].get("RUNNING") == 2, LONG_S, pause_s=0.5)
        so_far = load.total
        until(lambda: load.total >= so_far + 20, LONG_S)
    seldom = Seldom(f"{ray.url}/detect", jpeg)
    with seldom:
        until(lambda: ray.status()["replicas"] == {"RUNNING": 1}, LONG_S, pause_s=0.5)
    assert load.outcomes == {"200": load.total}
    assert set(seldom.statuses) == {200}


class Seldom(threading.Thread):
    """A client that asks about every second, for the length of a `with` block."""

    def __init__(self, url: str, picture: bytes) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self._url, self._picture = url, picture
        self._is_over = threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(1):
            answer = httpx.post(
                self._url, content=self._picture, headers={"content-type": "image/jpeg"}, timeout=LONG_S
            )
            self.statuses.append(answer.status_code)


def test_a_bad_model_leaves_the_old_one_serving_and_its_reason_is_told(
    two: RayServe, settings: dict[str, Any], jpeg: bytes, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(settings["model"].read_bytes()[:1000])
    with Load(f"{two.url}/detect", jpeg, 1) as load:
        told = two.deploy(settings | {"model": bad}, num_replicas=2)
        so_far = load.total
        until(lambda: load.total >= so_far + 5, LONG_S)
    assert told["status"] == "DEPLOY_FAILED"
    assert "StartupError: bad.onnx: " in told["message"]
    assert load.outcomes == {"200": load.total}


def test_who_finds_no_room_is_told_at_once_and_who_does_is_answered_within_the_deadline(
    ray: RayServe, settings: dict[str, Any], jpeg: bytes
) -> None:
    """By itself Ray has all but five wait in its own queue, which knows no deadline."""
    limits = {"max_batch_size": 1, "max_queue_size": 4, "request_timeout_ms": 5000}
    assert ray.deploy(settings | limits, num_replicas=1)["status"] == "RUNNING"
    spent: list[float] = []
    statuses: list[int] = []

    def ask() -> None:
        began = time.monotonic()
        statuses.append(detect(ray, jpeg).status_code)
        spent.append(time.monotonic() - began)

    clients = [threading.Thread(target=ask) for _ in range(60)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert set(statuses) <= {200, 503, 504}
    assert statuses.count(503) > 10
    assert max(spent) < 60, "on a loaded machine"
