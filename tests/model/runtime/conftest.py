from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.runtime.artifact.file import Artifact, read_artifact
from tests.tiny_artifact import write_tiny_artifact

PARITY = Path(__file__).parents[2] / "parity" / "detr_resnet50_panoptic.npz"

Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="session")
def panoptic_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return read_artifact(write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx", "panoptic"))


@pytest.fixture(scope="session")
def detection_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return read_artifact(write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "boxes.onnx", "detection"))


@pytest.fixture(scope="session")
def parity() -> Arrays:
    """The arrays computed with the published implementation; tests/parity/README.md says what each is."""
    with np.load(PARITY) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture
def write_bytes(tmp_path: Path) -> Callable[[bytes], Path]:
    """Write bytes to a file called model.onnx."""
    path = tmp_path / "model.onnx"

    def write(data: bytes) -> Path:
        path.write_bytes(data)
        return path

    return write
