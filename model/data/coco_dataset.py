"""What COCO's instance and panoptic annotations have in common as torch data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from model.data.coco_files import Target, read_categories, read_records
from model.data.objects import Objects
from model.data.picture_files import read_pixels
from model.runtime.categories import Category


class CocoDataset(Dataset[tuple[Tensor, Target]], ABC):
    """The pictures of an annotation file. What is in each is for the kind of annotation to say."""

    objects: Objects

    def __init__(
        self,
        content: dict[str, Any],
        annotations: Path,
        images: Path,
        categories: Sequence[Category] | None,
        masks: bool,
    ) -> None:
        """Take over what was read of an annotation file; ValueError if one of its pictures is malformed."""
        self.annotations = annotations
        self.images = images
        self.categories = tuple(categories) if categories is not None else read_categories(content)
        self.records = read_records(content, annotations)
        self.masks = masks

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every picture, without decoding any."""
        return [(record.height, record.width) for record in self.records]

    def __len__(self) -> int:
        """Number of pictures, those without an object included."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Decode one item, the picture as RGB, uint8 [3, height, width]; raises what `target` and `read_pixels` do."""
        target = self.target(index)
        pixels = torch.from_numpy(read_pixels(self.images, self.records[index]))
        return tv_tensors.Image(pixels.permute(2, 0, 1).contiguous()), target

    @abstractmethod
    def target(self, index: int) -> Target:
        """What is in one picture."""
