"""The Deployment of docker/kubernetes/base runs for real, from the image that is really built.

podman plays it without a cluster: containers, users, disks and memory are as the manifest says. What it leaves out is
the business of a node and its network: probes, the grace period and the network policy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.end_to_end.images import Buildah
from tests.end_to_end.kubernetes import MANIFESTS, Kubernetes, container_of, only
from tests.end_to_end.podman import PROGRAMS, Podman, network_of_its_own
from tests.processes import PATIENCE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

BASE_URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def podman(need: Callable[..., None], buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Podman:
    need(*PROGRAMS, root=True)
    return Podman(tmp_path_factory.mktemp("podman"), buildah)


@pytest.fixture(scope="module")
def deployment(kubernetes: Kubernetes, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base's Deployment, as far as podman needs it changed."""
    resources = kubernetes.rendered(MANIFESTS / "base")
    container = container_of(resources)
    assert f"localhost/{container['image']}" == image
    container |= {"image": image, "imagePullPolicy": "Never"}
    # They would need a bridge of podman's, and curl in the image.
    for part in ("ports", "startupProbe", "readinessProbe", "livenessProbe"):
        del container[part]
    shown = only(resources, "Deployment")
    shown["spec"]["template"]["spec"]["hostNetwork"] = True
    (path := tmp_path_factory.mktemp("play") / "deployment.yaml").write_text(yaml.safe_dump(shown))
    return path


def facts(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def is_ready() -> bool:
    try:
        return httpx.get(f"{BASE_URL}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def played(podman: Podman, deployment: Path) -> Iterator[str]:
    """The Deployment, ready; the name of its container."""
    podman("kube", "play", deployment)
    try:
        until(is_ready, pause_s=0.2)
        (name,) = podman("ps", "--format", "{{.Names}}", "--filter", "name=-detr$").split()
        yield name
    finally:
        podman("kube", "down", deployment)


def test_the_deployment_answers_as_its_user_on_a_disk_that_it_cannot_write(
    podman: Podman, deployment: Path, jpeg: bytes
) -> None:
    with network_of_its_own():
        with played(podman, deployment) as name:
            answer = httpx.post(f"{BASE_URL}/detect", files={"image": jpeg}, timeout=PATIENCE_S)
            assert answer.json()["image"] == {"width": 128, "height": 96}, answer.text
            assert "detr_images_in_flight 0.0" in httpx.get("http://127.0.0.1:8001/metrics").text
            check_contained(int(podman("inspect", "--format", "{{.State.Pid}}", name)))
            (budget,) = (line for line in podman("logs", name).splitlines() if "memory budget" in line)
            assert '"level": "info"' in budget, "it is a warning where the manifest gives less"
        assert not is_ready()


def check_contained(pid: int) -> None:
    """The process has what the manifest gives it, and nothing more."""
    process = facts(pid)
    assert set(process["Uid"].split()) == set(process["Gid"].split()) == {"10001"}
    assert int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0
    assert process["NoNewPrivs"] == "1"
    variables = dict(part.split("=", 1) for part in Path(f"/proc/{pid}/environ").read_text().split("\0") if part)
    assert variables["DETR_CPU_THREADS"] == variables["DETR_ENGINE_THREADS"] == "2"
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    options = {mount[4]: mount[5].split(",") for mount in mounts}
    assert "ro" in options["/"]
    assert "rw" in options["/tmp"]  # noqa: S108  # a path inside the container
    assert memory_limit(pid) == 3 * 2**30


def memory_limit(pid: int) -> int:
    """Bytes, of the control group of a process."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        old, new = (
            Path(f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes"),
            Path(f"/sys/fs/cgroup{group}/memory.max"),
        )
        if controllers == "memory" or (controllers == "" and new.is_file()):
            return int((old if controllers else new).read_text())
    raise AssertionError(f"process {pid} of {os.uname().nodename} has no limit of memory")
