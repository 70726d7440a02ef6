"""From items of unequal sizes to batches: which go together, and how they share a canvas."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from model.data.coco_files import Target
from model.nested_tensor import pad_images
from model.runtime.preprocess import CANVAS_MULTIPLE

BUCKETS_AN_OCTAVE = 4  # aspect ratios within a factor of 2 ** (1 / 4) share a batch


class TrainingBatch(NamedTuple):
    """Pictures on one canvas, top-left aligned, and what is in them."""

    images: Tensor  # uint8 [B, 3, H, W], zero on padding; H and W divide by CANVAS_MULTIPLE
    padding_mask: Tensor  # bool [B, H, W], True on padding
    targets: list[Target]  # masks stay at their picture's own size, without padding


def collate(items: Sequence[tuple[Tensor, Target]]) -> TrainingBatch:
    """Pad pictures, uint8 [3, h, w], to the smallest canvas that holds all; ValueError if there is none."""
    images, padding_mask = pad_images([image for image, _ in items], CANVAS_MULTIPLE)
    return TrainingBatch(images, padding_mask, [target for _, target in items])


class AspectRatioBatchSampler(Sampler[list[int]]):
    """Batches of pictures with about the same aspect ratio, so that little of their canvas is padding.

    The same seed and epoch give the same batches in the same order. Every index comes once an epoch, unless
    `drop_last` leaves out the last, smaller batch. What does not fill a batch of its own aspect ratio is
    batched with the nearest others.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        """Sample from pictures of the given (height, width).

        Raises ValueError if an epoch would have no batch.
        """
        if batch_size < 1 or len(sizes) < (batch_size if drop_last else 1):
            raise ValueError(f"{len(sizes)} pictures do not make a batch of {batch_size}")
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.epoch = 0
        self._ratios = np.array([width / height for height, width in sizes])

    @property
    def sampler(self) -> AspectRatioBatchSampler:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches an epoch."""
        count = len(self._ratios) / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the present epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self._ratios)) if self.shuffle else np.arange(len(self._ratios))
        batches, rest = self._full_batches(order)
        rest.sort(key=lambda index: float(self._ratios[index]))
        batches += [rest[start : start + self.batch_size] for start in range(0, len(rest), self.batch_size)]
        if self.drop_last and len(batches[-1]) < self.batch_size:
            batches.pop()
        turns = rng.permutation(len(batches)) if self.shuffle else np.arange(len(batches))
        for turn in turns.tolist():
            yield batches[turn]

    def _full_batches(self, order: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
        """Fill a batch for each bucket of aspect ratios; returns the full ones and the indices left over."""
        buckets = np.round(np.log2(self._ratios) * BUCKETS_AN_OCTAVE).astype(int).tolist()
        filling: dict[int, list[int]] = defaultdict(list)
        full = []
        for index in order.tolist():
            batch = filling[buckets[index]]
            batch.append(index)
            if len(batch) == self.batch_size:
                full.append(filling.pop(buckets[index]))
        return full, [index for batch in filling.values() for index in batch]
