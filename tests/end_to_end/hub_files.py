"""The files of models as they lie on the hub, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, ResNetConfig

from tests.model.transformers_models import randomize

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
