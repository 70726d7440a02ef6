"""How much an answer changes with the batch it is computed in, with exact and with published padding.

    python -m tests.benchmarks.padding

Images of several sizes are answered alone and in padded batches, by networks with the weights of the parity data. What
is printed is the largest change of a class probability and of a box side (pixels), over all queries and images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from model.network.box_ops import cxcywh_to_xyxy
from model.network.config import PRESETS, ModelConfig
from model.network.detr import DETR
from model.network.nested_tensor import normalize, pad_images
from model.network.segmentation import DETRsegm
from model.runtime.artifact.metadata import Padding
from model.runtime.engines.golden_recording import fixed_picture
from tests.model.networks import filled

SIZES = ((97, 141), (150, 101), (224, 320), (96, 96))
PADDINGS: tuple[Padding, ...] = ("exact", "published")


def changes(network: DETR | DETRsegm, images: list[Tensor], multiple: int) -> tuple[float, float]:
    """The largest change in probability and in pixels between the batch of all images and each alone."""
    probability = pixels = 0.0
    together = network(normalize(*pad_images(images, multiple)))
    for i, image in enumerate(images):
        alone = network(normalize(*pad_images([image], multiple)))
        both = [outputs["pred_logits"][n].softmax(-1) for outputs, n in ((together, i), (alone, 0))]
        probability = max(probability, float((both[0] - both[1]).abs().max()))
        size = torch.tensor([image.shape[2], image.shape[1]] * 2)
        corners = [cxcywh_to_xyxy(outputs["pred_boxes"][n]) * size for outputs, n in ((together, i), (alone, 0))]
        pixels = max(pixels, float((corners[0] - corners[1]).abs().max()))
    return probability, pixels


def rows() -> Iterator[tuple[str, str, float, float]]:
    """Model, padding and the two changes."""
    images = [torch.from_numpy(fixed_picture(*size)).permute(2, 0, 1) for size in SIZES]
    for name in ("detr-resnet-50", "detr-resnet-50-dc5"):
        for padding in PADDINGS:
            config: ModelConfig = replace(PRESETS[name], padding=padding)
            # The published canvas is as large as the largest image; exact padding rounds it up.
            yield name, padding, *changes(filled(config), images, 32 if padding == "exact" else 1)


if __name__ == "__main__":
    print("| model | padding | largest change of a probability | of a box side |")
    print("| --- | --- | --- | --- |")
    with torch.no_grad():
        for model, padding, probability, pixels in rows():
            print(f"| {model} | {padding} | {probability:.1g} | {pixels:.2g} px |")
