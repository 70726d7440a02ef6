"""What docker/requirements.py makes of pyproject.toml."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.end_to_end.conftest import REPOSITORY


def requirements_for(accelerator: str) -> subprocess.CompletedProcess[str]:
    script = REPOSITORY / "docker/requirements.py"
    return subprocess.run(
        [sys.executable, script, accelerator, REPOSITORY / "pyproject.toml"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("accelerator", ["openvino", "cpu"])
def test_an_image_for_a_cpu_takes_the_plain_runtime_on_every_platform(accelerator: str) -> None:
    wanted = {line.name: line for line in map(Requirement, requirements_for(accelerator).stdout.splitlines())}
    assert ("openvino" in wanted) == (accelerator == "openvino")
    assert "onnxruntime-gpu" not in wanted
    assert wanted["onnxruntime"].marker is None
    assert {"numpy", "pillow", "fastapi", "uvicorn"} <= set(wanted)


def test_a_cuda_image_takes_the_gpu_runtime_with_its_libraries() -> None:
    wanted = {line.name: line for line in map(Requirement, requirements_for("cuda").stdout.splitlines())}
    assert "onnxruntime" not in wanted
    assert wanted["onnxruntime-gpu"].extras == {"cuda", "cudnn"}
    assert {"numpy", "pillow", "fastapi", "uvicorn"} <= set(wanted)


@pytest.mark.parametrize("accelerator", ["", "gpu", "CPU"])
def test_another_accelerator_stops_the_build(accelerator: str) -> None:
    result = requirements_for(accelerator)
    assert result.returncode != 0
    assert "has to be one of openvino, cpu, cuda" in result.stderr
