"""From an annotated picture to what the network learns from: flips, crops and sizes, applied to all of it.

Pictures stay uint8; they are normalized once, in a batch, on the device. Boxes leave as cxcywh normalized by
the size the network sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from model.data.coco_files import Target
from model.runtime.preprocess import ResizeRule, resize

Item = tuple[Tensor, Target]

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
    """Random flip, random crop if asked for, and resize to one of several sizes.

    Draws from torch's global generator, which a `DataLoader` seeds in each of its workers.
    """

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

    def __call__(self, image: Tensor, target: Target) -> Item:
        """Augment an item of a data set; boxes that lie outside a crop are gone."""
        item = image, target
        if _chance(self.flip):
            item = _flipped(*item)
        if self.crop and _chance(0.5):
            item = _cropped(*item, self.crop)
        rule = self.rules[_integer(0, len(self.rules) - 1)]
        return _finished(*_resized(*item, rule.size(*_size(item[0]))))


class EvalTransform:
    """The service's own resize, pixel for pixel, and nothing else."""

    def __init__(self, rule: ResizeRule) -> None:
        self.rule = rule

    def __call__(self, image: Tensor, target: Target) -> Item:
        """Resize an item of a data set; the picture goes through the same filter as an uploaded one."""
        pixels = resize(image.permute(1, 2, 0).contiguous().numpy(), self.rule)
        small = tv_tensors.Image(torch.tensor(pixels).permute(2, 0, 1).contiguous())
        _, target = _resized(image, target, _size(small), picture=False)
        return _finished(small, target)


def train_transform(rule: ResizeRule, *, multi_scale: bool = False, crop: bool = False) -> TrainTransform:
    """The published augmentation in proportion to a resize rule: at 800 and 1333 it is the published one.

    Args:
        rule: the largest size, and the only one without `multi_scale`.
        multi_scale: draw the shortest edge between 0.6 and 1 of the rule's.
        crop: let half of the pictures be crops.
    """
    edge = rule.shortest_edge
    scales = _SCALES if multi_scale else (1.0,)
    rules = [ResizeRule(max(1, round(scale * edge)), rule.longest_edge) for scale in scales]
    edges = tuple(max(1, round(scale * edge)) for scale in _CROP_SCALES)
    smallest, largest = (max(1, round(side * edge)) for side in _CROP_SIDES)
    return TrainTransform(rules, crop=Crop(edges, smallest, largest) if crop else None)


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability


def _integer(low: int, high: int) -> int:
    """A random integer, both ends included."""
    return int(torch.randint(low, high + 1, ()))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[-2], image.shape[-1]


def _boxes(target: Target) -> tv_tensors.BoundingBoxes:
    boxes = target["boxes"]
    if not isinstance(boxes, tv_tensors.BoundingBoxes):
        raise TypeError("boxes must be tv_tensors.BoundingBoxes, as a data set gives them before any transform")
    return boxes


def _flipped(image: Tensor, target: Target) -> Item:
    target = dict(target, boxes=F.horizontal_flip(_boxes(target)))
    if "masks" in target:
        target["masks"] = F.horizontal_flip(target["masks"])
    return F.horizontal_flip(image), target


def _resized(image: Tensor, target: Target, size: tuple[int, int], *, picture: bool = True) -> Item:
    """Resize everything to (height, width), or with `picture=False` everything but the picture."""
    if size == _size(image):
        return image, target
    target = dict(target, boxes=F.resize(_boxes(target), list(size)))
    if "masks" in target:
        target["masks"] = F.resize(target["masks"], list(size), interpolation=InterpolationMode.NEAREST)
    return (F.resize(image, list(size), antialias=True) if picture else image), target


def _cropped(image: Tensor, target: Target, crop: Crop) -> Item:
    """Resize to one of the crop's sizes, cut out a rectangle, and clip the boxes to it."""
    edge = crop.shortest_edges[_integer(0, len(crop.shortest_edges) - 1)]
    unbounded = ResizeRule(edge, max(_size(image)) * edge)
    image, target = _resized(image, target, unbounded.size(*_size(image)))
    height, width = (_integer(min(crop.smallest, side), min(crop.largest, side)) for side in _size(image))
    top, left = _integer(0, image.shape[-2] - height), _integer(0, image.shape[-1] - width)
    where = (top, left, height, width)
    target = dict(target, boxes=F.clamp_bounding_boxes(F.crop(_boxes(target), *where)))
    if "masks" in target:
        target["masks"] = F.crop(target["masks"], *where)
    return F.crop(image, *where), target


def _finished(image: Tensor, target: Target) -> Item:
    """Plain tensors: boxes as cxcywh normalized by the picture's size, masks as bool, none of them empty."""
    height, width = _size(image)
    boxes = _boxes(target)
    x1, y1, x2, y2 = boxes.as_subclass(Tensor).to(torch.float32).unbind(dim=1)
    kept = (x2 > x1) & (y2 > y1)
    cxcywh = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
    finished = {name: value.as_subclass(Tensor) for name, value in target.items()}
    finished["size"] = torch.tensor([height, width])
    finished["boxes"] = cxcywh / torch.tensor([width, height, width, height])
    if "masks" in target:
        finished["masks"] = finished["masks"].to(torch.bool)
        kept &= finished["masks"].flatten(1).any(dim=1)
    if not bool(kept.all()):
        for name in {"boxes", "labels", "masks", "isthing"} & set(finished):
            finished[name] = finished[name][kept]
    return image.as_subclass(Tensor), finished
