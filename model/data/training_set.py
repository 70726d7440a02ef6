"""The pictures that a network is trained on: decoded and augmented, the same for the same draw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.data.coco_dataset import CocoDataset
from model.data.coco_files import Target
from model.data.collate import Draw

Augmentation = Callable[[Tensor, Target, torch.Generator], tuple[Tensor, Target]]


class TrainingSet(Dataset[tuple[Tensor, Target]]):
    """A data set as the network learns from it; its keys are the draws of an `AspectRatioBatchSampler`.

    Every random number comes from the draw's own seed, none from a global generator: which process loads a picture,
    and what it loaded before, changes nothing.
    """

    def __init__(self, data: CocoDataset, transform: Augmentation) -> None:
        self.data = data
        self.transform = transform

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.data)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Target]:
        """Decode and augment one item; raises what `CocoDataset` does."""
        image, target = self.data[draw.index]
        return self.transform(image, target, torch.Generator().manual_seed(draw.seed))
