"""What importing must not do: need torch or a web framework in the wrong place, or phone home."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import REPOSITORY

# Imports every module of the packages in argv[1] in a fresh interpreter where those in argv[2] do not exist.
IMPORT_ALL = """
import importlib, pkgutil, sys
packages, blocked = (argument.split(",") for argument in sys.argv[1:])

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())
for package in packages:
    root = importlib.import_module(package)
    print(package)
    for module in pkgutil.walk_packages(getattr(root, "__path__", []), package + "."):
        importlib.import_module(module.name)
        print(module.name)
"""

TRAINING = (
    "torch",
    "torchvision",
    "lightning",
    "pytorch_lightning",
    "onnx",
    "onnxscript",
    "scipy",
)
WEB = ("fastapi", "starlette", "uvicorn")
HTTP = (*WEB, "prometheus_client", "service")
# Errors, but for what Ray does with pydantic.
WARNINGS = ("-W", "error", "-W", "ignore:Using extra keyword arguments on")
RUNTIMES = ("onnxruntime", "openvino")


def import_all(packages: str, blocked: tuple[str, ...]) -> list[str]:
    """Names of the modules that were imported."""
    result = subprocess.run(
        [sys.executable, *WARNINGS, "-c", IMPORT_ALL, packages, ",".join(blocked)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


def test_serving_imports_without_torch() -> None:
    modules = import_all("service,model.runtime,model.hub,model.templates", TRAINING)
    some = {
        "model.hub.download",
        "model.templates.importing",
        "service.app",
        "service.cli",
        "model.runtime.engines.opening",
        "model.runtime.answers.panoptic",
    }
    assert some <= set(modules)


def test_a_checkpoint_is_recognised_without_torch() -> None:
    names = ["artifact_metadata", "folder", "hugging_face", "hugging_face_config", "own", "preprocessor", "published"]
    names += ["structure"]
    modules = [f"model.checkpoint.{name}" for name in names] + ["model.templates"]
    assert set(modules) <= set(import_all(",".join([*modules, "model.network.config"]), TRAINING))


def test_the_model_imports_without_the_web_framework() -> None:
    modules = import_all("model", HTTP)
    assert {"model.network.detr", "model.train", "model.export", "model.runtime.engines.opening"} <= set(modules)


def test_below_http_the_service_imports_without_the_web_framework() -> None:
    rooms = "service.lifecycle,service.images,service.batching,service.process"
    assert {"service.lifecycle.service", "service.images.answers"} <= set(import_all(rooms, WEB))


def test_batches_are_formed_without_the_runtimes_that_run_them() -> None:
    assert "service.batching.batcher" in import_all(
        "service.batching", (*WEB, *RUNTIMES, "pydantic", "prometheus_client")
    )


def test_the_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="torch is blocked"):
        import_all("model", ("torch",))


def test_importing_the_runtime_starts_no_telemetry(tmp_path: Path) -> None:
    # Official builds of ONNX Runtime report their use over the network from the first import on, and leave an
    # identifier and a queue of events in the home folder; not in CI, so this test must not look like CI.
    hides = {"ORT_DISABLE_TELEMETRY", "CI"}
    env = {name: value for name, value in os.environ.items() if name not in hides and "PYTEST" not in name}
    command = [sys.executable, "-c", "import model.runtime.engines.opening"]
    subprocess.run(command, cwd=REPOSITORY, env=env | {"HOME": str(tmp_path)}, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
