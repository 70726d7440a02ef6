"""From an annotated picture to what the network learns from: flips, crops and sizes, applied to all of it.

Masks stay in their layers: what is done here moves pixels without mixing them, so it may be done to all at once.
Pictures stay uint8; they are normalized once, in a batch, on the device. Boxes leave as cxcywh normalized by
the size the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from model.data.coco_files import Target
from model.data.mask_layers import visible
from model.runtime.preprocess import resize_to
from model.runtime.resize_rule import Edges, ResizeRule

_Item = tuple[Tensor, Target]

# DETR (arXiv:2005.12872), appendix A.4, relative to its shortest edge of 800: train at 480 to 800 in steps of
# 32, and crop 384 to 600 pixels from a picture whose shorter side is 400, 500 or 600.
_SCALES = tuple(scale / 800 for scale in range(480, 801, 32))
_CROP_SCALES = tuple(scale / 800 for scale in (400, 500, 600))
_CROP_SIDES = (384 / 800, 600 / 800)


@dataclass(frozen=True)
class Crop:
    """Resize, then cut out a random rectangle, before the last resize."""

    shortest_edges: tuple[int, ...]  # pixels, one is drawn
    smallest: int  # pixels, of either side of the rectangle
    largest: int


class TrainTransform:
    """Random flip, random crop if asked for, and resize to one of several sizes."""

    def __init__(self, rules: Sequence[ResizeRule], *, crop: Crop | None = None, flip: float = 0.5) -> None:
        """Augment as told.

        Args:
            rules: one is drawn for every picture.
            crop: applied to half of the pictures; None for none.
            flip: probability of a horizontal flip.

        Raises ValueError if there is no rule.
        """
        if not rules:
            raise ValueError("a training transform needs at least one resize rule")
        self.rules = tuple(rules)
        self.crop = crop
        self.flip = flip

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> _Item:
        """Augment an item of a data set with random numbers of the generator only.

        Objects that lie outside a crop are gone. Raises TypeError if the item was transformed already.
        """
        item = image, target
        if _chance(self.flip, generator):
            item = _flipped(*item)
        if self.crop and _chance(0.5, generator):
            item = _cropped(*item, self.crop, generator)
        rule = self.rules[_integer(0, len(self.rules) - 1, generator)]
        return _finished(*_resized(*item, rule.size(*_size(item[0]))))


def train_transform(rule: ResizeRule, *, multi_scale: bool = False, crop: bool = False) -> TrainTransform:
    """The published augmentation in proportion to a resize rule: at 800 and 1333 it is the published one.

    Args:
        rule: the largest size, and the only one without `multi_scale`.
        multi_scale: draw the shortest edge between 0.6 and 1 of the rule's.
        crop: let half of the pictures be crops.

    Raises ValueError where sizes are to be drawn and the rule has no edges.
    """
    if not (multi_scale or crop):
        return TrainTransform([rule])
    if not isinstance(rule, Edges):
        raise ValueError(
            f"multi-scale and cropped training draw a shortest edge, and the resize rule ({rule}) has none: "
            "give --shortest-edge and --longest-edge, or switch both off"
        )
    edge = rule.shortest_edge
    scales = _SCALES if multi_scale else (1.0,)
    rules = [replace(rule, shortest_edge=max(1, round(scale * edge))) for scale in scales]
    edges = tuple(max(1, round(scale * edge)) for scale in _CROP_SCALES)
    smallest, largest = (max(1, round(side * edge)) for side in _CROP_SIDES)
    return TrainTransform(rules, crop=Crop(edges, smallest, largest) if crop else None)


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _boxes(target: Target) -> tv_tensors.BoundingBoxes:
    boxes = target["boxes"]
    if not isinstance(boxes, tv_tensors.BoundingBoxes):
        raise TypeError("boxes must be tv_tensors.BoundingBoxes, as a data set gives them before any transform")
    return boxes


def _flipped(image: Tensor, target: Target) -> _Item:
    target = dict(target, boxes=F.horizontal_flip(_boxes(target)))
    if "mask_ids" in target:
        target["mask_ids"] = F.horizontal_flip(target["mask_ids"])
    return F.horizontal_flip(image), target


def _resized(image: Tensor, target: Target, size: tuple[int, int]) -> _Item:
    """Resize everything to (height, width)."""
    if size == _size(image):
        return image, target
    target = dict(target, boxes=F.resize(_boxes(target), list(size)))
    if "mask_ids" in target:
        target["mask_ids"] = F.resize(target["mask_ids"], list(size), interpolation=InterpolationMode.NEAREST)
    return _resampled(image, size), target


def _resampled(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture, uint8 [3, H, W], as the service would resize it."""
    picture = Image.fromarray(image.as_subclass(Tensor).permute(1, 2, 0).contiguous().numpy())
    return torch.from_numpy(np.ascontiguousarray(resize_to(picture, size))).permute(2, 0, 1)


def _cropped(image: Tensor, target: Target, crop: Crop, generator: torch.Generator) -> _Item:
    """Resize to one of the crop's sizes, cut out a rectangle, and clip the boxes to it."""
    edge = crop.shortest_edges[_integer(0, len(crop.shortest_edges) - 1, generator)]
    unbounded = Edges(edge, max(_size(image)) * edge)
    image, target = _resized(image, target, unbounded.size(*_size(image)))
    height, width = (_integer(min(crop.smallest, side), min(crop.largest, side), generator) for side in _size(image))
    top, left = _integer(0, image.shape[-2] - height, generator), _integer(0, image.shape[-1] - width, generator)
    where = (top, left, height, width)
    target = dict(target, boxes=F.clamp_bounding_boxes(F.crop(_boxes(target), *where)))
    if "mask_ids" in target:
        target["mask_ids"] = F.crop(target["mask_ids"], *where)
    return F.crop(image, *where), target


def _finished(image: Tensor, target: Target) -> _Item:
    """Plain tensors: boxes as cxcywh normalized by the picture's size, and only objects of which something is left."""
    height, width = _size(image)
    x1, y1, x2, y2 = _boxes(target).as_subclass(Tensor).to(torch.float32).unbind(dim=1)
    kept = (x2 > x1) & (y2 > y1)
    cxcywh = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
    # A crop is a view, and a view would take the whole picture along to another process.
    finished = {name: value.as_subclass(Tensor).contiguous() for name, value in target.items()}
    finished["size"] = torch.tensor([height, width])
    finished["boxes"] = cxcywh / torch.tensor([width, height, width, height])
    if "mask_ids" in finished:
        kept &= visible(finished)
    if not bool(kept.all()):
        for name in {"boxes", "labels", "mask_values", "isthing"} & set(finished):
            finished[name] = finished[name][kept]
    return image.as_subclass(Tensor).contiguous(), finished
