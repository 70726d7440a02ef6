"""docker-compose.yml is run for real, by the commands of docs/deploy.md: podman and podman-compose play Docker.

The service's image is the one that `make image` builds. Those of nginx and Prometheus hold Debian's programs under the
names that the file has. The file itself is run as it stands; of nginx's configuration one word has to change.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.documentation import blocks
from tests.end_to_end.conftest import REPOSITORY
from tests.end_to_end.images import Buildah, image_of_programs
from tests.end_to_end.load import Load
from tests.end_to_end.podman import PROGRAMS, Podman, network_of_its_own
from tests.end_to_end.prometheus import query, wait_until_query
from tests.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.timeout(1800)]

COMMANDS = [
    command
    for block in blocks()
    if block.note == "run by tests/end_to_end/test_compose_up.py"
    for command in block.commands
]
URL, PROMETHEUS = "http://127.0.0.1:8000", "http://127.0.0.1:9090"
# The file's networks are the first two that podman makes; each gateway answers for names, too.
INSIDE = "10.89.1.1"
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
        until(lambda: status("/health/ready") == 200, pause_s=0.2)

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

    def log(self) -> str:
        return self.podman("logs", "detr_detr_1")


def status(path: str) -> int | None:
    try:
        return httpx.get(f"{URL}{path}", timeout=5).status_code
    except httpx.TransportError:
        return None


def detect(jpeg: bytes, **headers: str) -> httpx.Response:
    return httpx.post(f"{URL}/detect", content=jpeg, headers={"content-type": "image/jpeg"} | headers, timeout=60)


@pytest.fixture(scope="module")
def podman(
    need: Callable[..., None], buildah: Buildah, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Podman]:
    need(*PROGRAMS, "nginx", "prometheus", root=True)
    assert image == "localhost/detr-serve:0.1.0"
    programs = [Path(str(shutil.which(name))) for name in ("nginx", "wget", "prometheus")]
    path = ("--env", "PATH=/usr/sbin:/usr/bin")
    image_of_programs(buildah, "docker.io/library/nginx:1.28-alpine", programs[:2], config=path)
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
    image_of_programs(buildah, name, programs[2:], {"prometheus": 65534}, (*path, *words))
    # A database belongs to one podman, so this one has a storage of its own and sees the other's images.
    own = Buildah(tmp_path_factory.mktemp("storage"))
    own.storage += ("--storage-opt", f"vfs.imagestore={buildah.storage[buildah.storage.index('--root') + 1]}")
    made = Podman(tmp_path_factory.mktemp("podman"), own)
    with network_of_its_own():
        yield made


@pytest.fixture
def project(podman: Podman, demo: Path, tmp_path: Path) -> Iterator[Project]:
    """A folder with the compose files, and models and keys of one's own; nothing is left of its containers."""
    folder = tmp_path / "detr"
    shutil.copytree(REPOSITORY / "docker", folder / "docker")
    for file in REPOSITORY.glob("docker-compose*.yml"):
        shutil.copy(file, folder)
    configuration = folder / "docker/nginx/nginx.conf"
    text = configuration.read_text()
    assert text.count("resolver 127.0.0.11 ") == 1
    configuration.write_text(text.replace("resolver 127.0.0.11 ", f"resolver {INSIDE} "))
    print(f"changed for podman: nginx.conf: resolver 127.0.0.11 -> {INSIDE}")
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
    assert query(PROMETHEUS, DETECT) == [1]
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
    log = project.log()
    assert "stopped, exit code 0" in log
    assert log.count('"route": "/detect", "status": 200') == load.outcomes["200"] + 1


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


def test_every_command_of_the_page_is_one_of_these() -> None:
    source = Path(__file__).read_text()
    assert COMMANDS
    assert [command for command in COMMANDS if command not in source] == []
