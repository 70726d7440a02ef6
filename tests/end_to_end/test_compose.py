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


def test_compose_starts_the_service_its_proxy_prometheus_and_what_fetches_the_model(resolve: Resolve) -> None:
    services = resolve("docker-compose.yml")
    # Some versions of compose list what nobody asked for by its profile as well.
    assert set(services) - {"grafana"} == {"detr", "model", "proxy", "prometheus"}
    assert services["prometheus"]["image"] == "prom/prometheus:v3.5.0"
    assert services["proxy"]["image"].startswith("nginx:")
    assert (REPOSITORY / services["detr"]["build"]["dockerfile"]).is_file()


def test_the_service_is_reached_through_the_proxy_only(resolve: Resolve) -> None:
    services = resolve("docker-compose.yml")
    assert "ports" not in services["detr"]
    assert set(services["detr"]["networks"]) == {"inside"}
    assert set(services["proxy"]["networks"]) == {"inside", "outside"}
    networks = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["networks"]
    assert networks["inside"] == {"internal": True}
    published = {name: str(services[name]["ports"]) for name in services if "ports" in services[name]}
    assert "8000" in published["proxy"]
    assert "127.0.0.1" in published["prometheus"]
    assert published.keys() - {"grafana"} == {"proxy", "prometheus"}


def test_the_model_comes_from_outside_into_a_volume_and_the_service_still_reaches_nobody(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETR_MODEL", "facebook/detr-resnet-50")
    services = resolve("docker-compose.yml")
    model, detr = services["model"], services["detr"]
    assert set(model["networks"]) == {"outside"}
    assert model["image"] == detr["image"]
    assert model["volumes"][0] == detr["volumes"][0]
    assert "/var/cache/detr" in str(detr["volumes"][0])
    assert detr["depends_on"]["model"]["condition"] == "service_completed_successfully"
    assert [services[name]["environment"]["DETR_MODEL"] for name in ("model", "detr")] == 2 * [
        "facebook/detr-resnet-50"
    ]
    assert str(detr["environment"]["HF_HUB_OFFLINE"]) == "1"
    assert "HF_TOKEN" not in detr["environment"]


@pytest.mark.parametrize(
    ("named", "fetched"),
    [
        ({}, None),
        ({"DETR_MODEL": ""}, None),
        ({"DETR_MODEL": "/opt/model/model.onnx"}, None),
        ({"DETR_MODEL": "/models/folder-of-transformers"}, None),
        ({"DETR_MODEL": "facebook/detr-resnet-50"}, ["fetch", "facebook/detr-resnet-50"]),
        ({"DETR_MODEL": "a/b", "DETR_REVISION": "v1"}, ["fetch", "a/b", "--revision", "v1"]),
    ],
)
def test_only_a_name_on_the_hub_is_fetched(named: dict[str, str], fetched: list[str] | None, tmp_path: Path) -> None:
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["model"]
    (tmp_path / "detr").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "detr").chmod(0o755)
    words = [word.replace("$$", "$") for word in [*service["entrypoint"], *service["command"]]]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | named
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == (fetched or [])


@pytest.mark.parametrize(
    ("servers", "asked"),
    [
        ("nameserver 127.0.0.11\n", "127.0.0.11"),
        ("search dns.podman\nnameserver 10.89.0.1\nnameserver 10.89.1.1\n", "10.89.0.1"),
        ("nameserver fd00::1\n", "[fd00::1]"),
    ],
)
def test_the_proxy_asks_the_first_name_server_of_its_container(servers: str, asked: str, tmp_path: Path) -> None:
    service = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["proxy"]
    (tmp_path / "nginx").write_text("#!/bin/sh\n")
    (tmp_path / "nginx").chmod(0o755)
    (tmp_path / "resolv.conf").write_text(servers)
    begin, (command,) = service["entrypoint"], service["command"]
    here = command.replace("$$", "$").replace("/etc/", f"{tmp_path}/").replace("/tmp/r", f"{tmp_path}/r")  # noqa: S108
    subprocess.run([*begin, here], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True)
    assert (tmp_path / "resolver.conf").read_text() == f"resolver {asked} valid=5s ipv6=off;\n"


@pytest.mark.parametrize("name", ["detr", "model", "proxy", "prometheus"])
def test_a_container_has_no_privilege_no_writable_disk_and_bounds(resolve: Resolve, name: str) -> None:
    service = resolve("docker-compose.yml")[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert 0 < service["pids_limit"] <= 256
    assert service["mem_limit"]
    # The images of the others have a user of their own, which is not root.
    assert service.get("user") == ("101:101" if name == "proxy" else None)


@pytest.mark.parametrize("name", ["detr", "model", "proxy"])
def test_what_is_temporary_stays_in_memory(resolve: Resolve, name: str) -> None:
    (place,) = resolve("docker-compose.yml")[name]["tmpfs"]
    assert place.partition(":")[0] == "/tmp"  # noqa: S108  # a path inside the container


def changed(plain: dict[str, Any], laid_over: dict[str, Any]) -> set[str]:
    """What another file changes of a service. Where two files are read, compose writes lists in another way."""

    def normal(service: dict[str, Any]) -> dict[str, Any]:
        volumes = sorted(str(volume).removesuffix(":rw") for volume in service["volumes"])
        return service | {"networks": set(service["networks"]), "volumes": volumes}

    plain, laid_over = normal(plain), normal(laid_over)
    return {key for key in plain | laid_over if plain.get(key) != laid_over.get(key)}


def test_the_cuda_file_adds_all_gpus_to_the_same_service(resolve: Resolve) -> None:
    plain = resolve("docker-compose.yml")["detr"]
    cuda = resolve("docker-compose.yml", "docker-compose.cuda.yml")["detr"]
    assert cuda["build"]["args"] == {"ACCELERATOR": "cuda"}
    assert resolve("docker-compose.yml", "docker-compose.cuda.yml")["model"]["image"] == cuda["image"]
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert device["count"] in (-1, "all")  # as Compose resolves it
    assert changed(plain, cuda) == {"build", "image", "deploy", "environment"}
    assert cuda["environment"] == plain["environment"] | {"DETR_DEVICES": "cuda:all"}


def test_the_keys_file_adds_a_secret_to_the_same_service(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETR_KEYS", "/etc/keys-of-detr")
    plain = resolve("docker-compose.yml")["detr"]
    closed = resolve("docker-compose.yml", "docker-compose.keys.yml")["detr"]
    assert "DETR_API_KEYS_FILE" not in plain["environment"]
    assert closed["environment"].pop("DETR_API_KEYS_FILE") == "/run/secrets/api_keys"
    (secret,) = closed["secrets"]
    assert secret["source"] == "api_keys"
    assert changed(plain, closed) == {"secrets"}
    whole = yaml.safe_load((REPOSITORY / "docker-compose.keys.yml").read_text())
    assert whole["secrets"] == {"api_keys": {"file": "${DETR_KEYS:-./keys}"}}


def test_models_of_ones_own_are_a_folder_that_the_service_can_only_read(
    resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"{REPOSITORY}/models:/models:ro" in str(resolve("docker-compose.yml")["detr"]["volumes"])
    monkeypatch.setenv("DETR_MODELS", "/srv/models")
    assert "/srv/models:/models:ro" in str(resolve("docker-compose.yml")["detr"]["volumes"])


def test_the_check_notices_a_broken_file(resolve: Resolve, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text((REPOSITORY / "docker-compose.yml").read_text().replace("read_only:", "readonly:"))
    with pytest.raises(AssertionError, match="readonly"):
        resolve(broken)
