"""The pictures that a network is evaluated on: resized and padded as the service does it, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.picture_files import read_pixels
from model.runtime.preprocess import Batch, make_batch, resize
from model.runtime.resize_rule import ResizeRule


class EvaluationBatch(NamedTuple):
    """Pictures on one canvas, and which they are."""

    indices: list[int]  # into the data set
    batch: Batch

    def to(self, device: object) -> EvaluationBatch:
        """Itself: engines take arrays and move them. Lightning would take the batch apart to find tensors."""
        return self


class EvaluationSet(Dataset[tuple[int, NDArray[np.uint8]]]):
    """The pictures of a data set as the service sees an uploaded one; what is in them stays with the data set."""

    def __init__(self, data: CocoDataset, rule: ResizeRule) -> None:
        self.data = data
        self.rule = rule

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[int, NDArray[np.uint8]]:
        """The index and the resized picture, RGB uint8 [h, w, 3]; raises what `picture_files.read_pixels` does."""
        return index, resize(read_pixels(self.data.images, self.data.records[index]), self.rule)


def collate_evaluation(items: Sequence[tuple[int, NDArray[np.uint8]]]) -> EvaluationBatch:
    """Items of an `EvaluationSet` on the smallest canvas that holds all; ValueError if there is none."""
    return EvaluationBatch([index for index, _ in items], make_batch([picture for _, picture in items]))
