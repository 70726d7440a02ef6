"""From an annotated picture to what the network learns from: what is done at random, and sizes, applied to all of it.

Masks stay in their layers: what is done here moves pixels without mixing them, so it may be done to all at once.
Pictures stay uint8; they are normalized once, in a batch, on the device. Boxes leave as cxcywh normalized by
the size the network sees.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from model.data.formats.coco_files import Target
from model.data.formats.mask_layers import MaskLayers, tight_boxes_xyxy, visible
from model.runtime.preprocess import resize_to
from model.runtime.resize_rule import Edges, ResizeRule

_Item = tuple[Tensor, Target]
Augmentation = Literal["flip", "multi-scale", "crop", "vertical-flip", "rotation", "colour", "large-scale-jitter"]
MIRRORED: tuple[Augmentation, ...] = ("flip",)
PUBLISHED: tuple[Augmentation, ...] = ("flip", "multi-scale", "crop")

# DETR (arXiv:2005.12872), appendix A.4, relative to its shortest edge of 800: train at 480 to 800 in steps of
# 32, and crop 384 to 600 pixels from a picture whose shorter side is 400, 500 or 600.
_SCALES = tuple(scale / 800 for scale in range(480, 801, 32))
_CROP_SCALES = tuple(scale / 800 for scale in (400, 500, 600))
_CROP_SIDES = (384 / 800, 600 / 800)
_DEGREES = 15.0  # of a rotation, to either side
_FILL = [124.0, 116.0, 104.0]  # what a rotation brings in: ImageNet's mean, which the network sees as zero
_JITTER = (0.1, 2.0)  # times the size, in large-scale jitter (arXiv:2012.07177)
# SSD's distortions of colour (arXiv:1512.02325), each of half of the pictures: the range of its factor or shift.
_COLOURS = (
    (F.adjust_brightness, 0.875, 1.125),
    (F.adjust_contrast, 0.5, 1.5),
    (F.adjust_saturation, 0.5, 1.5),
    (F.adjust_hue, -0.05, 0.05),
)


@dataclass(frozen=True)
class Crop:
    """Resize, then cut out a random rectangle, before the last resize."""

    shortest_edges: tuple[int, ...]  # pixels, one is drawn
    smallest: int  # pixels, of either side of the rectangle
    largest: int


class TrainTransform:
    """Augmentations by their names, then a resize to one of several sizes."""

    def __init__(
        self, rules: Sequence[ResizeRule], augment: Collection[Augmentation] = MIRRORED, *, crop: Crop | None = None
    ) -> None:
        """Augment as told.

        Args:
            rules: one is drawn for every picture.
            augment: what is done; flips are done to half of the pictures, and so is each distortion of colour. A
                rotation is of up to 15 degrees, and large-scale jitter resizes to 0.1 to 2 times the size, of which it
                takes a part no larger than that.
            crop: applied to half of the pictures; None for none.

        Raises ValueError if there is no rule.
        """
        if not rules:
            raise ValueError("a training transform needs at least one resize rule")
        self.rules = tuple(rules)
        self.augment = frozenset(augment)
        self.crop = crop

    def __call__(self, image: Tensor, target: Target, generator: torch.Generator) -> _Item:
        """Augment an item of a data set with random numbers of the generator only.

        Objects of which nothing is left in the picture are gone. Raises TypeError if the item was transformed already.
        """
        item = image, target
        if "flip" in self.augment and _chance(0.5, generator):
            item = _mapped(F.horizontal_flip, *item)
        if "vertical-flip" in self.augment and _chance(0.5, generator):
            item = _mapped(F.vertical_flip, *item)
        if "rotation" in self.augment:
            item = _rotated(*item, _number(-_DEGREES, _DEGREES, generator))
        if self.crop and _chance(0.5, generator):
            item = _cropped(*item, self.crop, generator)
        rule = self.rules[_integer(0, len(self.rules) - 1, generator)]
        size = rule.size(*_size(item[0]))
        item = _jittered(*item, size, generator) if "large-scale-jitter" in self.augment else _resized(*item, size)
        if "colour" in self.augment:
            item = _recoloured(item[0], generator), item[1]
        return _finished(*item)


def train_transform(rule: ResizeRule, augment: Collection[Augmentation] = MIRRORED) -> TrainTransform:
    """Augmentations in proportion to a resize rule: `PUBLISHED` at 800 and 1333 are the published ones.

    Args:
        rule: the largest size, and the only one without `multi-scale`, which draws a shortest edge between 0.6 and 1 of
            the rule's.
        augment: what is done; half of the pictures are crops with `crop`.

    Raises ValueError where sizes are to be drawn and the rule has no edges.
    """
    if not {"multi-scale", "crop"} & set(augment):
        return TrainTransform([rule], augment)
    if not isinstance(rule, Edges):
        raise ValueError(
            f"--augment multi-scale and crop draw a shortest edge, and the resize rule ({rule}) has none: "
            "give --shortest-edge and --longest-edge, or leave both out"
        )
    edge = rule.shortest_edge
    scales = _SCALES if "multi-scale" in augment else (1.0,)
    rules = [replace(rule, shortest_edge=max(1, round(scale * edge))) for scale in scales]
    edges = tuple(max(1, round(scale * edge)) for scale in _CROP_SCALES)
    smallest, largest = (max(1, round(side * edge)) for side in _CROP_SIDES)
    return TrainTransform(rules, augment, crop=Crop(edges, smallest, largest) if "crop" in augment else None)


def _chance(probability: float, generator: torch.Generator) -> bool:
    return float(torch.rand((), generator=generator)) < probability


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """A random integer, both ends included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _number(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _boxes(target: Target) -> tv_tensors.BoundingBoxes:
    boxes = target["boxes"]
    if not isinstance(boxes, tv_tensors.BoundingBoxes):
        raise TypeError("boxes must be tv_tensors.BoundingBoxes, as a data set gives them before any transform")
    return boxes


def _mapped(function: Callable[[Tensor], Tensor], image: Tensor, target: Target) -> _Item:
    """What one of torchvision's functions does to the picture, its boxes and its masks."""
    target = dict(target, boxes=function(_boxes(target)))
    if "mask_ids" in target:
        target["mask_ids"] = function(target["mask_ids"])
    return function(image), target


def _rotated(image: Tensor, target: Target, degrees: float) -> _Item:
    """Turn everything around the picture's middle; a box is then the one around its mask, or around its corners."""
    boxes = F.clamp_bounding_boxes(F.rotate(_boxes(target), degrees))
    target = dict(target, boxes=boxes)
    if "mask_ids" in target:
        target["mask_ids"] = F.rotate(target["mask_ids"], degrees, interpolation=InterpolationMode.NEAREST)
        values = target["mask_values"]
        numbers = torch.arange(1, int(values.max()) + 1 if len(values) else 1)
        tight = tight_boxes_xyxy(MaskLayers(target["mask_ids"].as_subclass(Tensor), numbers))
        target["boxes"] = tv_tensors.wrap(tight[values - 1], like=boxes)
    return F.rotate(image, degrees, interpolation=InterpolationMode.BILINEAR, fill=_FILL), target


def _jittered(image: Tensor, target: Target, size: tuple[int, int], generator: torch.Generator) -> _Item:
    """Resize to a multiple of (height, width), and cut out a part no larger than that."""
    scale = _number(*_JITTER, generator)
    image, target = _resized(image, target, (max(1, round(scale * size[0])), max(1, round(scale * size[1]))))
    height, width = (min(side, limit) for side, limit in zip(_size(image), size, strict=True))
    return _cut(image, target, height, width, generator)


def _recoloured(image: Tensor, generator: torch.Generator) -> Tensor:
    for adjust, low, high in _COLOURS:
        if _chance(0.5, generator):
            image = adjust(image, _number(low, high, generator))
    return image


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
    return _cut(image, target, height, width, generator)


def _cut(image: Tensor, target: Target, height: int, width: int, generator: torch.Generator) -> _Item:
    """A rectangle of this size somewhere in the picture, with the boxes clipped to it."""
    top, left = _integer(0, image.shape[-2] - height, generator), _integer(0, image.shape[-1] - width, generator)
    image, target = _mapped(lambda part: F.crop(part, top, left, height, width), image, target)
    return image, dict(target, boxes=F.clamp_bounding_boxes(_boxes(target)))


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
