"""From a published checkpoint and a folder of own pictures to a server that knows the names of own classes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.data.shapes.command import write_shapes
from model.network.build import build_model
from model.network.config import ModelConfig
from tests.parity.parity_weights import value
from tests.server_process import serving

NAMES = {1: "circle", 2: "Person", 3: "widget"}  # one of them is COCO's, by another case
# Of the published structure, in a size that trains in seconds; 91 classes, as the published detectors have.
PUBLISHED = ModelConfig(
    backbone="resnet18", hidden_dim=32, dim_feedforward=64, encoder_layers=1, decoder_layers=1, num_queries=20
)


def detr(*words: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "service.cli", *words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A checkpoint as the reference's training script writes one."""
    state = {
        key: torch.from_numpy(value(key, tuple(tensor.shape), 11))
        for key, tensor in build_model(PUBLISHED).state_dict().items()
    }
    path = tmp_path / "published.pth"
    torch.save({"model": state}, path)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Pictures annotated with three classes, in COCO's format."""
    root = tmp_path / "mine"
    write_shapes(root, {"train": 8, "val": 3}, size=64, seed=5)
    for split in ("train", "val"):
        file = root / "annotations" / f"instances_{split}2017.json"
        content = json.loads(file.read_text())
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] in NAMES]
        content["categories"] = [{"id": id_, "name": name} for id_, name in NAMES.items()]
        file.write_text(json.dumps(content))
    return root


@pytest.mark.slow
def test_a_published_checkpoint_fine_tuned_to_three_classes_serves_their_names(
    published: Path, mine: Path, tmp_path: Path, jpeg: bytes
) -> None:
    options = ["--epochs", "1", "--batch-size", "4", "--workers", "0", "--shortest-edge", "64", "--longest-edge", "96"]
    data = ["--data", "coco", "--root", str(mine)]
    said = detr("train", "--init", str(published), *data, "--out", "out", *options, cwd=tmp_path)
    assert "recipe fine-tune" in said
    assert "classes kept, by name: 1 (Person)" in said
    assert "classes fresh: 2 (circle, widget)" in said
    detr("export", "out/model.safetensors", "--out", "mine.onnx", cwd=tmp_path)
    with serving(tmp_path / "mine.onnx", tmp_path) as server:
        model = server.get("/model").json()
        assert {c["id"]: c["name"] for c in model["categories"]} == NAMES
        assert model["provenance"]["init"]["source"] == "published.pth"
        answer = server.post("/detect?threshold=0", jpeg, "image/jpeg").json()
    found = {(d["category_id"], d["label"]) for d in answer["detections"]}
    assert len(answer["detections"]) == PUBLISHED.num_queries
    assert found <= set(NAMES.items())
