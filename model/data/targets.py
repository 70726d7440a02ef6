"""What a picture's objects are to the network: the target of a training item."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors

from model.data.coco_files import ImageRecord, Target
from model.data.mask_layers import MaskLayers
from model.data.objects import clipped_xyxy


def make_target(
    record: ImageRecord, labels: NDArray[np.int64], boxes_xyxy: Tensor, layers: MaskLayers | None
) -> Target:
    """Gather a target, leaving out boxes without an area.

    Args:
        record: the picture it belongs to.
        labels: m class indices.
        boxes_xyxy: [m, 4], absolute pixels; clipped to the picture here.
        layers: the m masks, or None.
    """
    size = torch.tensor([record.height, record.width])
    boxes, kept = clipped_xyxy(boxes_xyxy.to(torch.float32).reshape(-1, 4), size)
    target: Target = {
        "image_id": torch.tensor(record.id),
        "orig_size": size,
        "size": size.clone(),
        "labels": torch.tensor(labels, dtype=torch.int64)[kept],
        "boxes": tv_tensors.BoundingBoxes(
            boxes[kept],
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=(record.height, record.width),
        ),
    }
    if layers is not None:
        # The masks of those left out stay in their layer, where no value asks for them.
        target["mask_ids"] = tv_tensors.Mask(layers.mask_ids)
        target["mask_values"] = layers.mask_values[kept]
    return target
