"""What docker/requirements.py makes of pyproject.toml, and that docker/requirements-*.txt pins all of it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from itertools import product
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.end_to_end.conftest import REPOSITORY

IMAGES = ("openvino", "cpu", "cuda")
# Where an image can run: its Python comes with its base.
PLACES = [
    {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine,
     "sys_platform": "linux", "platform_system": "Linux", "platform_python_implementation": "CPython"}
    for python, machine in product(("3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64"))
]  # fmt: skip
# The first releases without a hole that an upload or a request can reach.
FIRST_SAFE = {"pillow": "12.3.0", "python-multipart": "0.0.31", "starlette": "1.3.1", "h11": "0.16.0"}


def requirements_for(flavour: str) -> subprocess.CompletedProcess[str]:
    script = REPOSITORY / "docker/requirements.py"
    return subprocess.run(
        [sys.executable, script, flavour, REPOSITORY / "pyproject.toml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def wanted_by(flavour: str) -> list[Requirement]:
    """What pyproject.toml asks of this flavour."""
    return [Requirement(line) for line in requirements_for(flavour).stdout.splitlines()]


def lock_of(flavour: str) -> Path:
    return REPOSITORY / f"docker/requirements-{flavour}.txt"


@cache
def entries_of(flavour: str) -> tuple[str, ...]:
    """Each package of a lock, with its hashes, as one line."""
    text = re.sub(r"^\s*#.*\n", "", lock_of(flavour).read_text(), flags=re.MULTILINE)
    return tuple(text.replace("\\\n", " ").splitlines())


def pins_of(flavour: str) -> list[Requirement]:
    return [Requirement(entry.partition(" --hash=")[0]) for entry in entries_of(flavour)]


def applies(requirement: Requirement, place: dict[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(place)


@pytest.mark.parametrize("flavour", ["openvino", "cpu"])
def test_an_image_for_a_cpu_takes_the_plain_runtime_on_every_platform(flavour: str) -> None:
    wanted = {line.name: line for line in wanted_by(flavour)}
    assert ("openvino" in wanted) == (flavour == "openvino")
    assert "onnxruntime-gpu" not in wanted
    assert wanted["onnxruntime"].marker is None
    assert {"numpy", "pillow", "fastapi", "uvicorn"} <= set(wanted)


def test_a_cuda_image_takes_the_gpu_runtime_with_its_libraries() -> None:
    wanted = {line.name: line for line in wanted_by("cuda")}
    assert "onnxruntime" not in wanted
    assert wanted["onnxruntime-gpu"].extras == {"cuda", "cudnn"}
    assert {"numpy", "pillow", "fastapi", "uvicorn"} <= set(wanted)


@pytest.mark.parametrize("flavour", ["", "gpu", "CPU"])
def test_another_flavour_is_an_error(flavour: str) -> None:
    result = requirements_for(flavour)
    assert result.returncode != 0
    assert "has to be one of openvino, cpu, cuda, build" in result.stderr


@pytest.mark.row(id="S10")
@pytest.mark.parametrize("flavour", [*IMAGES, "build"])
def test_every_package_of_a_lock_has_one_version_and_the_hashes_of_its_files(flavour: str) -> None:
    for entry in entries_of(flavour):
        package, *hashes = re.split(r"\s+--hash=", entry.strip())
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+]*( ; .+)?", package.strip()), package
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), package
    for place in PLACES:
        names = [pin.name for pin in pins_of(flavour) if applies(pin, place)]
        assert len(names) == len(set(names)), f"two versions of one package at {place}"


@pytest.mark.row(id="S10")
@pytest.mark.parametrize("flavour", [*IMAGES, "build"])
def test_a_lock_pins_everything_that_pyproject_asks_for_within_its_range(flavour: str) -> None:
    """Where it does not, `make lock` has to be run. That it holds what these need in turn, pip sees at the install."""
    for place, wanted in product(PLACES, wanted_by(flavour)):
        if not applies(wanted, place):
            continue
        pinned = {canonicalize_name(pin.name): pin for pin in pins_of(flavour) if applies(pin, place)}
        assert wanted.name in pinned, f"{wanted.name} is not in {lock_of(flavour).name}: make lock"
        (version,) = (specifier.version for specifier in pinned[canonicalize_name(wanted.name)].specifier)
        assert wanted.specifier.contains(version), f"{wanted} is locked at {version}: make lock"


@pytest.mark.row(id="S10")
@pytest.mark.parametrize("flavour", IMAGES)
def test_a_lock_of_an_image_holds_nothing_for_training_and_tests(flavour: str) -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    serving = {wanted.name for image in IMAGES for wanted in wanted_by(image)}
    brought = {"tqdm", "pyyaml"}  # by huggingface-hub
    elsewhere = {Requirement(line).name for extra in ("train", "dev") for line in extras[extra]} - serving - brought
    assert {"torch", "onnx", "pytest"} <= elsewhere
    assert not elsewhere & {pin.name for pin in pins_of(flavour)}
    assert ("openvino" in {pin.name for pin in pins_of(flavour)}) == (flavour == "openvino")


@pytest.mark.row(id="S10")
@pytest.mark.parametrize("flavour", IMAGES)
def test_no_lock_has_a_release_with_a_hole_that_a_request_can_reach(flavour: str) -> None:
    pins = {pin.name: pin for pin in pins_of(flavour)}
    for name, first_safe in FIRST_SAFE.items():
        (version,) = (specifier.version for specifier in pins[name].specifier)
        assert Requirement(f"{name}>={first_safe}").specifier.contains(version), f"{name} {version}"


@pytest.mark.row(id="S10")
def test_the_image_installs_the_lock_and_nothing_else() -> None:
    dockerfile = (REPOSITORY / "docker/Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:install|wheel) ([^&\n]*)", dockerfile)
    assert len(installs) == 4
    for options in installs:
        assert "--require-hashes" in options or {"--no-deps", "--no-index"} <= set(options.split()), options
    assert "requirements-${ACCELERATOR}.txt" in dockerfile
    ignored = (REPOSITORY / ".dockerignore").read_text()
    assert "!docker/requirements-*.txt" in ignored
