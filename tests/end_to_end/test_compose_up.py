"""docker-compose.yml is run for real, by the commands of docs/deploy.md: podman and podman-compose play Docker.

The service's image is the one that `make image` builds. Those of nginx and Prometheus hold Debian's programs under the
names that the file has. The files themselves are run as they stand.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.documentation import blocks
from tests.end_to_end.conftest import COCO, MAKE_COCO_IMAGE, REPOSITORY
from tests.end_to_end.images import Buildah, image_of_programs
from tests.end_to_end.load import Load
from tests.end_to_end.podman import PROGRAMS, Podman, network_of_its_own
from tests.end_to_end.prometheus import wait_until_query
from tests.fake_hub import fake_hub
from tests.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

COMMANDS = [
    command
    for block in blocks()
    if block.note == "run by tests/end_to_end/test_compose_up.py"
    for command in block.commands
]
URL, PROMETHEUS = "http://127.0.0.1:8000", "http://127.0.0.1:9090"
# Of this machine, where its containers reach a hub and its large files (TEST-NET-1, RFC 5737).
HUB_HOST, CDN_HOST = "192.0.2.1", "192.0.2.2"
KEY = "a-key-of-the-documentation"
# As the page has it, so that every command is one with keys.
CLOSED = {"COMPOSE_FILE": "docker-compose.yml:docker-compose.keys.yml"}
DETECT = 'sum(detr_requests_total{endpoint="detect",status="200"})'


@dataclass
class Project:
    """The folder of the compose file, and what runs its commands."""

    folder: Path
    podman: Podman

    def run(self, command: str, **env: str) -> str:
        """What a command of the documentation prints."""
        assert command in COMMANDS, f"docs/deploy.md has no {command!r}"
        return self.podman.shell(command, self.folder, env)

    def up(self, command: str, **env: str) -> None:
        """Run a command of the documentation that starts the service, and wait until it is ready."""
        self.run(command, **env)
        # Docker starts the service only then; podman does not ask.
        assert self.podman("wait", "detr_model_1") == "0", self.podman("logs", "detr_model_1")
        until(lambda: status("/health/ready") == 200, timeout_s=600, pause_s=0.2)

    def clear(self) -> None:
        """Remove all containers and networks, and leave the volumes."""
        # podman refuses to remove a container that others depend on, so those go first.
        for service in ("proxy", "prometheus", "detr", "model"):
            label = f"label=com.docker.compose.service={service}"
            names = self.podman("ps", "--all", "--quiet", "--filter", label).split()
            self.podman("rm", "--force", "--ignore", "--time", "10", *names, "none")
        self.podman("network", "prune", "--force")

    def check_closed(self, jpeg: bytes) -> None:
        """Only who has a key is answered."""
        assert detect(jpeg).status_code == 401
        assert status("/model") == 401
        assert detect(jpeg, authorization=f"Bearer {KEY}").status_code == 200

    def log(self, number: int = 1) -> str:
        """Of one replica of the service."""
        return self.podman("logs", f"detr_detr_{number}")

    def answered(self, number: int) -> int:
        """How many pictures a replica has answered."""
        return self.log(number).count('"route": "/detect", "status": 200')

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to a replica, past podman, which would take that for the wish that it stays away."""
        os.kill(int(self.podman("inspect", "--format", "{{.State.Pid}}", f"detr_detr_{number}")), what)

    def source(self) -> str:
        """Where the model that is served comes from."""
        answer = httpx.get(f"{URL}/model", headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        source: str = answer.raise_for_status().json()["provenance"]["source"]
        return source


def status(path: str) -> int | None:
    try:
        return httpx.get(f"{URL}{path}", timeout=5).status_code
    except httpx.TransportError:
        return None


def detect(jpeg: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{URL}/detect", content=jpeg, headers={"content-type": "image/jpeg"} | headers, timeout=60)


@pytest.fixture(scope="module")
def podman(
    need: Callable[..., None],
    buildah: Buildah,
    image: str,
    coco_image: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Podman]:
    """Both images are there by now, because to build one takes the network that there is no more inside."""
    need(*PROGRAMS, "nginx", "prometheus", root=True)
    assert (image, coco_image) == ("localhost/detr-serve:0.1.0", "detr-serve:coco")
    programs = [Path(str(shutil.which(name))) for name in ("nginx", "wget", "sh", "awk", "prometheus")]
    path = ("--env", "PATH=/usr/sbin:/usr/bin")
    image_of_programs(buildah, "docker.io/library/nginx:1.28-alpine", programs[:-1], config=path)
    options = ("--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus")
    words = (
        "--entrypoint",
        '["prometheus"]',
        "--cmd",
        " ".join(options),
        "--user",
        "nobody",
        "--volume",
        "/prometheus",
    )
    name = "docker.io/prom/prometheus:v3.5.0"
    image_of_programs(buildah, name, programs[-1:], {"prometheus": 65534}, (*path, *words))
    made = Podman(tmp_path_factory.mktemp("podman"), buildah)
    with network_of_its_own():
        yield made


@pytest.fixture
def project(podman: Podman, demo: Path, tmp_path: Path) -> Iterator[Project]:
    """A folder with the compose files, and models and keys of one's own; nothing is left of its containers."""
    folder = tmp_path / "detr"
    shutil.copytree(REPOSITORY / "docker", folder / "docker")
    for file in REPOSITORY.glob("docker-compose*.yml"):
        shutil.copy(file, folder)
    (folder / "models").mkdir()
    shutil.copy(demo, folder / "models/mine.onnx")
    (folder / "keys").write_text(f"{KEY}\n")
    project = Project(folder, podman)
    yield project
    project.clear()
    podman("volume", "prune", "--force")


def test_the_file_as_it_stands_detects_is_scraped_and_restarts_without_losing_what_it_accepted(
    project: Project, jpeg: bytes
) -> None:
    project.up("docker compose up --detach")
    assert detect(jpeg).status_code == 200
    wait_until_query(PROMETHEUS, 'up{job="detr"}', [1])
    wait_until_query(PROMETHEUS, DETECT, [1])  # which it may have scraped before that
    project.podman("healthcheck", "run", "detr_proxy_1")
    for name in ("detr", "proxy", "prometheus"):
        assert project.podman("top", f"detr_{name}_1", "capeff", "seccomp").splitlines()[1].split() == [
            "none",
            "filter",
        ]
        bounds = "{{.HostConfig.ReadonlyRootfs}} {{gt .HostConfig.Memory 0}} {{gt .HostConfig.PidsLimit 0}}"
        assert project.podman("inspect", "--format", bounds, f"detr_{name}_1") == "true true true"

    with Load(f"{URL}/detect", jpeg, clients=4) as load:
        until(lambda: load.outcomes.get("200", 0) >= 50)
        project.run("docker compose stop detr")
        project.run("docker compose start detr")
        so_far = load.outcomes["200"]
        until(lambda: load.outcomes["200"] >= so_far + 50)
    # While it is away, the proxy reaches nobody, and says so. What the service accepted, its client was answered.
    assert load.outcomes.keys() <= {"200", "502", "503", "504"}
    assert "stopped, exit code 0" in project.log()
    until(lambda: project.answered(1) == load.outcomes["200"] + 1)  # a thread writes the lines


def test_a_model_of_ones_own_is_served_from_its_folder_and_replaced_there_to_who_has_a_key(
    project: Project, jpeg: bytes
) -> None:
    project.up("DETR_MODEL=/models/mine.onnx docker compose up --detach", **CLOSED)
    project.check_closed(jpeg)
    assert "DETR_MODEL=/models/mine.onnx" in project.podman("exec", "detr_detr_1", "env").splitlines()
    project.run("docker compose kill -s HUP detr")
    until(lambda: "reloaded: " in project.log())
    project.check_closed(jpeg)


def test_with_keys_only_who_has_one_is_answered(project: Project, jpeg: bytes) -> None:
    project.up("DETR_KEYS=./keys docker compose -f docker-compose.yml -f docker-compose.keys.yml up --detach")
    project.check_closed(jpeg)


def test_a_model_of_the_hub_is_downloaded_into_the_volume_and_found_there_again_without_a_hub(
    project: Project, coco_files: dict[str, bytes], jpeg: bytes
) -> None:
    command = "DETR_MODEL=facebook/detr-resnet-50 docker compose up --detach"
    for host in (HUB_HOST, CDN_HOST):
        subprocess.run(["ip", "address", "replace", f"{host}/32", "dev", "lo"], check=True)
    everywhere = "0.0.0.0"  # of a network that nothing else is on
    with fake_hub(everywhere, CDN_HOST) as hub:
        endpoint = hub.url.replace(everywhere, HUB_HOST)
        hub.push(COCO, coco_files)
        project.up(command, HF_ENDPOINT=endpoint, **CLOSED)
        assert hub.downloads(".safetensors") == 1
        project.check_closed(jpeg)
        assert project.source() == COCO
    project.clear()
    project.up(command, HF_ENDPOINT=endpoint, **CLOSED)
    project.check_closed(jpeg)
    assert project.source() == COCO


def test_an_image_that_brings_its_model_serves_it_to_who_has_a_key(project: Project, jpeg: bytes) -> None:
    make, up = MAKE_COCO_IMAGE, "DETR_IMAGE=detr-serve:coco docker compose up --detach"
    assert make in COMMANDS
    project.up(up, **CLOSED)
    project.check_closed(jpeg)
    assert project.source() == COCO


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_two_replicas_lose_nothing_where_one_ends_and_both_are_scraped(
    project: Project, jpeg: bytes, number: signal.Signals
) -> None:
    project.up("docker compose up --detach --scale detr=2")
    wait_until_query(PROMETHEUS, 'up{job="detr"}', [1, 1])
    with Load(f"{URL}/detect", jpeg, clients=4) as load:
        until(lambda: min(project.answered(1), project.answered(2)) >= 20, timeout_s=600)
        project.signal(1, number)
        so_far = load.total
        until(lambda: load.total >= so_far + 100)
        # Docker starts it again by itself; podman refuses to, because of the download that is over.
        project.run("docker compose start detr")
        until(lambda: project.log(1).count('"message": "ready: ') == 2, timeout_s=600, pause_s=1)
    assert load.outcomes == {"200": load.total}


def test_every_command_of_the_page_is_one_of_these() -> None:
    source = Path(__file__).read_text() + MAKE_COCO_IMAGE
    assert COMMANDS
    assert [command for command in COMMANDS if command not in source] == []
