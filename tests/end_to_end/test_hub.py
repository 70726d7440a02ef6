"""From a name on the hub to a right answer, in a process that has no torch: the way a newcomer's first model takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, ResNetConfig

from model.checkpoint.reading import read_checkpoint
from model.export import export
from tests.end_to_end.conftest import REPOSITORY
from tests.fake_hub import FakeHub, fake_hub
from tests.model.test_cli import WITHOUT_TORCH
from tests.model.transformers_models import randomize
from tests.server_process import environment, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DETR = (sys.executable, "-c", WITHOUT_TORCH)
EXAMPLE = REPOSITORY / "docs/example.jpg"
OWL = {0: "cat", 1: "dog", 2: "owl"}
PROCESSOR = {
    "image_processor_type": "DetrImageProcessor",
    "size": {"shortest_edge": 800, "longest_edge": 1333},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
# As facebook has two of them, and one that somebody has fine-tuned.
MODELS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "facebook/detr-resnet-50": (DetrForObjectDetection, {"num_labels": 91}),
    "facebook/detr-resnet-50-panoptic": (DetrForSegmentation, {"num_labels": 250}),
    "someone/detr-of-three": (DetrForObjectDetection, {"id2label": OWL, "label2id": {v: k for k, v in OWL.items()}}),
}


@pytest.fixture(scope="module", params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repository_files(name, tmp_path_factory.mktemp("repository"))


def repository_files(name: str, folder: Path) -> Path:
    """The files of a repository: a ResNet-50 with random weights, as transformers saves it, and its processor."""
    kind, classes = MODELS[name]
    levels: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    backbone = ResNetConfig(**levels)
    offline: dict[str, Any] = {"use_timm_backbone": False, "use_pretrained_backbone": False}
    model = kind(DetrConfig(backbone_config=backbone, **offline, **classes)).eval()
    with torch.no_grad():
        randomize(model, seed=3)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture
def hub(name: str, folder: Path) -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.push(name, {path.name: path.read_bytes() for path in folder.iterdir()})
        yield hub


@pytest.fixture
def env(hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    caches = {"HF_HOME": str(tmp_path / "hf"), "DETR_MODEL_CACHE": str(tmp_path / "artifacts")}
    return environment() | {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **caches}


def check_alike(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other["label"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["box"] == pytest.approx(other["box"], abs=0.1)


def test_a_name_is_served_and_answers_as_the_export_of_its_weights_does(
    name: str, folder: Path, hub: FakeHub, env: dict[str, str], tmp_path: Path
) -> None:
    hub.interruptions = [("model.safetensors", 25 * 2**20)]
    with serving(name, tmp_path, command=(*DETR, "serve", "--device", "cpu"), env=env) as server:
        picture = EXAMPLE.read_bytes()
        detections = server.post("/detect?threshold=0.01", picture, "image/jpeg").json()["detections"]
        provenance = server.get("/model").json()["provenance"]
        if "panoptic" in name:
            assert server.post("/segment", picture, "image/jpeg").status_code == 200
        assert server.errors() == []
    assert provenance["source"] == name
    assert provenance["revision"] == hub.repositories[name].refs["main"]

    exported = tmp_path / "exported.onnx"
    export(read_checkpoint(folder, None, None), exported)
    words = ["predict", str(EXAMPLE), "--threshold", "0.01", "--device", "cpu", "--model", str(exported)]
    done = subprocess.run([*DETR, *words], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    check_alike(detections, json.loads(done.stdout)[0]["detections"])

    # What is in the cache needs no hub, and other commands find it there, too.
    hub.status = 503
    words[-1] = name
    again = subprocess.run([*DETR, *words], env=env, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    check_alike(json.loads(again.stdout)[0]["detections"], detections)
