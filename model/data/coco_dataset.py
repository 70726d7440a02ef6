"""What COCO's instance and panoptic annotations have in common as torch data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.data.coco_files import Target, read_categories, read_image, read_records
from model.runtime.categories import Category

Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class CocoDataset(Dataset[tuple[Tensor, Target]], ABC):
    """The pictures of an annotation file. What is in each is for the kind of annotation to say."""

    def __init__(
        self,
        content: dict[str, Any],
        images: Path,
        categories: Sequence[Category] | None,
        masks: bool,
        transform: Transform | None,
    ) -> None:
        """Take over an annotation file that was read; ValueError if it lists no image or no category."""
        self.images = images
        self.categories = tuple(categories) if categories is not None else read_categories(content)
        self.records = read_records(content)
        self.masks = masks
        self.transform = transform

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every picture, without decoding any."""
        return [(record.height, record.width) for record in self.records]

    def __len__(self) -> int:
        """Number of pictures, those without an object included."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Decode and transform one item; raises what `target` and `coco_files.read_image` do."""
        target = self.target(index)
        image: Tensor = read_image(self.images, self.records[index])
        return self.transform(image, target) if self.transform else (image, target)

    @abstractmethod
    def target(self, index: int) -> Target:
        """What is in one picture, before any transform."""


def boxes_xywh_to_xyxy(boxes: Sequence[tuple[float, ...]]) -> Tensor:
    """COCO's boxes (left, top, width, height) as corners, float32 [m, 4], m may be 0."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners
