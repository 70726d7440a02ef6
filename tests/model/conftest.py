"""What the tests of training, export and evaluation share. Exporting takes long, so it is done once for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.checkpoint.saving import save_checkpoint
from model.data.shapes.command import CATEGORIES, write_shapes
from model.network.segmentation import DETRsegm
from model.runtime import resampling
from service.cli import main
from tests.model.networks import SMALL, small_panoptic_network

# The exported artifacts by their fixtures. An export takes long, so that quick tests have the first only.
ARTIFACTS = [
    "panoptic_artifact",
    pytest.param("detection_artifact", marks=pytest.mark.slow),
    pytest.param("segmentation_artifact", marks=pytest.mark.slow),
]


@pytest.fixture
def pillows_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Pillow itself resize, where the reference that is compared with does."""
    monkeypatch.setattr(resampling, "_library", lambda: None)


@pytest.fixture(scope="session")
def tiny_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the size that a test can train on."""
    root = tmp_path_factory.mktemp("tiny-shapes")
    write_shapes(root, {"train": 6, "val": 4}, size=64, seed=3)
    return root


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set large enough for batches of pictures of several sizes."""
    root = tmp_path_factory.mktemp("shapes")
    write_shapes(root, {"train": 24, "val": 6}, size=64, seed=7)
    return root


@pytest.fixture(scope="session")
def small_network() -> DETRsegm:
    """A panoptic network of the shapes' classes with fixed weights, whose queries have masks of their own."""
    return small_panoptic_network()


@pytest.fixture(scope="session")
def small_checkpoint(small_network: DETRsegm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_network` as `detr train` saves one."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    provenance = {"command": "detr train", "note": "a test"}
    save_checkpoint(path, small_network.state_dict(), SMALL, CATEGORIES, provenance)
    return path


@pytest.fixture(scope="session")
def panoptic_artifact(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `detr export` makes of `small_checkpoint`."""
    out = tmp_path_factory.mktemp("export") / "new" / "small.onnx"
    main(["export", str(small_checkpoint), "--out", str(out)])
    return out


@pytest.fixture(scope="session")
def their_detector() -> Any:
    """A tiny DetrForObjectDetection of transformers with random weights and five named classes."""
    from tests.model.transformers_models import basic_detector  # not above: most tests need not wait for this import

    return basic_detector()


@pytest.fixture(scope="session")
def their_segmenter() -> Any:
    """A tiny DetrForSegmentation of transformers with random weights and the published class count."""
    from tests.model.transformers_models import basic_segmenter

    return basic_segmenter()


@pytest.fixture(scope="session")
def detection_artifact(their_detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `detr export` makes of the folder that transformers saves."""
    return _exported(their_detector, tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="session")
def segmentation_artifact(their_segmenter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `detr export` makes of the folder that transformers saves."""
    return _exported(their_segmenter, tmp_path_factory.mktemp("segmenter"))


def _exported(theirs: Any, folder: Path) -> Path:
    theirs.save_pretrained(folder / "saved")
    main(["export", str(folder / "saved"), "--out", str(folder / "model.onnx")])
    return folder / "model.onnx"
