"""Masks of many objects in a few maps of numbers, which is how they travel from the data set to the loss.

A picture of 640 x 480 pixels with 30 objects has 9 MB of masks but, as its objects hardly overlap, about 0.6 MB of
layers. Whatever moves pixels without mixing them (flip, crop, nearest resize) does the same to a layer as to the masks
in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


class MaskLayers(NamedTuple):
    """The masks of m objects; those that overlap lie in different layers."""

    mask_ids: Tensor  # uint8, or int32 for more than 255 objects, [layers, height, width]; 0 where there is nothing
    mask_values: Tensor  # int64 [m], the number of each object in `mask_ids`, 1 to m


def layers_of(masks: Iterable[NDArray[Any]], size: tuple[int, int]) -> MaskLayers:
    """Lay masks [height, width], bool or 0 and 1, that may overlap, each into the first layer with room for it.

    Masks are taken one at a time, so a generator that decodes them holds only one. `size` is their (height, width).
    """
    layers: list[NDArray[np.int32]] = []
    count = 0
    for count, mask in enumerate(masks, start=1):
        inside = mask.astype(np.bool_)
        layer = next((layer for layer in layers if not layer[inside].any()), None)
        if layer is None:
            layer = np.zeros_like(inside, dtype=np.int32)
            layers.append(layer)
        layer[inside] = count
    stacked = np.stack(layers) if layers else np.zeros((0, *size), np.int32)
    return _numbered(stacked, count)


def layer_of_segments(id_map: NDArray[np.int32], segment_ids: Sequence[int]) -> MaskLayers:
    """One layer of the segments of an id map [height, width]; other pixels are nothing."""
    layer = np.zeros(id_map.shape, np.int32)
    for value, segment_id in enumerate(segment_ids, start=1):
        layer[id_map == segment_id] = value
    return _numbered(layer[None], len(segment_ids))


def masks_of(target: Mapping[str, Tensor]) -> Tensor:
    """The mask of every object of a target with `mask_ids` and `mask_values`: bool [m, height, width], same device."""
    mask_ids, values = target["mask_ids"], target["mask_values"].view(-1, 1, 1)
    masks = torch.zeros((len(values), *mask_ids.shape[1:]), dtype=torch.bool, device=mask_ids.device)
    for layer in mask_ids:
        masks |= layer == values
    return masks


def visible(target: Mapping[str, Tensor]) -> Tensor:
    """Which of a target's objects have a pixel, bool [m], found without expanding any mask."""
    values = target["mask_values"]
    if not len(values):
        return torch.zeros(0, dtype=torch.bool)
    pixels = torch.bincount(target["mask_ids"].flatten(), minlength=int(values.max()) + 1)
    return pixels[values] > 0


def tight_boxes_xyxy(layers: MaskLayers) -> Tensor:
    """Boxes around masks, float32 [m, 4] in absolute pixels; all 0 for a mask without a pixel.

    The right and lower sides lie past the last pixel, so a box of one pixel has an area of 1, as in COCO.
    """
    boxes = torch.zeros((len(layers.mask_values), 4))
    for layer in layers.mask_ids.numpy():
        for row, found in enumerate(ndimage.find_objects(layer)):
            if found is not None:
                down, across = found
                boxes[row] = torch.tensor([across.start, down.start, across.stop, down.stop])
    return boxes


def _numbered(layers: NDArray[np.int32], count: int) -> MaskLayers:
    small = layers.astype(np.uint8) if count <= np.iinfo(np.uint8).max else layers
    return MaskLayers(torch.from_numpy(np.ascontiguousarray(small)), torch.arange(1, count + 1))
