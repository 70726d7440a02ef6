"""The compose files are valid, and say what they are meant to say."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.end_to_end.conftest import REPOSITORY

Resolve = Callable[..., dict[str, Any]]


def compose_command() -> list[str]:
    """Docker's plugin where it is installed, otherwise the program that Debian packages."""
    plugin = ["docker", "compose"]
    if shutil.which("docker") and subprocess.run([*plugin, "version"], capture_output=True).returncode == 0:
        return plugin
    return ["docker-compose"]


@pytest.fixture
def resolve(need: Callable[..., None]) -> Resolve:
    """Compose's own reading of the given files: one configuration with every default filled in."""
    command = compose_command()
    need(command[0])

    def resolved(*files: str | Path) -> dict[str, Any]:
        chosen = [argument for file in files for argument in ("-f", str(file))]
        result = subprocess.run(
            [*command, *chosen, "config"], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
        services: dict[str, Any] = yaml.safe_load(result.stdout)["services"]
        return services

    return resolved


def test_compose_starts_the_service_and_prometheus(resolve: Resolve) -> None:
    services = resolve("docker-compose.yml")
    assert set(services) == {"detr", "prometheus"}
    assert services["prometheus"]["image"] == "prom/prometheus:v3.5.0"
    assert (REPOSITORY / services["detr"]["build"]["dockerfile"]).is_file()


def test_the_service_runs_with_no_privilege_and_no_writable_disk(
    resolve: Resolve,
) -> None:
    detr = resolve("docker-compose.yml")["detr"]
    assert detr["read_only"] is True
    assert detr["tmpfs"] == ["/tmp"]  # noqa: S108  # a path inside the container
    assert detr["cap_drop"] == ["ALL"]
    assert detr["security_opt"] == ["no-new-privileges:true"]
    assert not detr.get("privileged")
    assert "user" not in detr  # the image's own user, which is not root


def test_the_cuda_file_adds_one_gpu_to_the_same_service(resolve: Resolve) -> None:
    plain = resolve("docker-compose.yml")["detr"]
    cuda = resolve("docker-compose.yml", "docker-compose.cuda.yml")["detr"]
    assert cuda["build"]["args"] == {"ACCELERATOR": "cuda"}
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert {key for key in cuda if plain.get(key) != cuda[key]} == {"build", "image", "deploy"}


def test_the_check_notices_a_broken_file(resolve: Resolve, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text((REPOSITORY / "docker-compose.yml").read_text().replace("read_only:", "readonly:"))
    with pytest.raises(AssertionError, match="readonly"):
        resolve(broken)
