"""DETR through the pipelines of transformers, and its model folders with the weights of a checkpoint of ours."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import (
    DetrConfig,
    DetrForObjectDetection,
    DetrForSegmentation,
    DetrImageProcessor,
    ResNetConfig,
    pipeline,
)

from model.checkpoint.hugging_face import published_key
from model.checkpoint.reading import read_checkpoint
from service.images.answers import TaskName

_PIPELINES: Mapping[TaskName, str] = {"detect": "object-detection", "segment": "image-segmentation"}
_PROJECTION = re.compile(r"\.([qkv])_proj\.(weight|bias)$")


class PipelineModel:
    """Answers what the pipeline answers, as JSON; masks as PNG in base64."""

    def __init__(self, folder: Path, kind: TaskName, threshold: float | None) -> None:
        make: Any = pipeline  # its overloads are of literal names
        self._pipeline = make(_PIPELINES[kind], model=str(folder), device="cpu")
        options: dict[str, Any] = {} if kind == "detect" else {"subtask": "panoptic"}
        self._options = options if threshold is None else options | {"threshold": threshold}

    def answer(self, body: bytes) -> bytes:
        """One encoded image to JSON."""
        found = self._pipeline(Image.open(io.BytesIO(body)).convert("RGB"), **self._options)
        return json.dumps([{key: _plain(value) for key, value in each.items()} for each in found]).encode()


def save_folder(checkpoint: Path, kind: TaskName, folder: Path) -> None:
    """Write what `from_pretrained` reads, of a published ResNet-50 checkpoint with masks."""
    read = read_checkpoint(checkpoint)
    levels: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    settings: dict[str, Any] = {
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
        "num_queries": read.config.num_queries,
        "num_labels": read.config.num_classes,
    }
    config = DetrConfig(backbone_config=ResNetConfig(**levels), **settings)
    theirs: Any = DetrForSegmentation(config) if kind == "segment" else DetrForObjectDetection(config)
    fill(theirs, read.state_dict)
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    theirs.save_pretrained(folder)
    height, width = read.config.resize.largest(max_pixels=1)
    size = {"shortest_edge": height, "longest_edge": width}
    DetrImageProcessor(size=size).save_pretrained(folder)


def fill(theirs: torch.nn.Module, published: Mapping[str, Tensor]) -> None:
    """Give a model of transformers the weights of a state dict under the published names."""
    whole = {key.removeprefix("detr."): tensor for key, tensor in published.items()}
    with torch.no_grad():
        for key, tensor in theirs.state_dict().items():
            name = published_key(key).removeprefix("detr.")
            if name.endswith("num_batches_tracked"):
                continue
            projection = _PROJECTION.search(name)
            if projection is not None:
                joint = whole[_PROJECTION.sub(rf".in_proj_{projection[2]}", name)]
                tensor.copy_(joint.chunk(3)["qkv".index(projection[1])])
            else:
                tensor.copy_(whole[name])


def _plain(value: Any) -> Any:
    if not isinstance(value, Image.Image):
        return value
    buffer = io.BytesIO()
    value.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")
