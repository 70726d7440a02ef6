"""From items of unequal sizes to batches: which go together, and how they share a canvas."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from model.data.formats.coco_files import Target
from model.data.repeats import epoch_length, repeated
from model.network.nested_tensor import pad_images
from model.runtime.preprocess import CANVAS_MULTIPLE

BUCKETS_AN_OCTAVE = 4  # aspect ratios within a factor of 2 ** (1 / 4) share a batch


class TrainingBatch(NamedTuple):
    """Pictures on one canvas, top-left aligned, and what is in them."""

    images: Tensor  # uint8 [B, 3, H, W], zero on padding; H and W divide by CANVAS_MULTIPLE
    padding_mask: Tensor  # bool [B, H, W], True on padding
    targets: list[Target]  # mask layers stay at their picture's own size, without padding


@dataclass(frozen=True, slots=True)
class Draw:
    """What a sampler asks a `TrainingSet` for."""

    index: int  # of the picture
    seed: int  # of every random number in its augmentation


def collate(items: Sequence[tuple[Tensor, Target]], parts: int = 1) -> list[TrainingBatch]:
    """Pad pictures, uint8 [3, h, w], to the smallest canvas that holds all, or all of each of `parts` equal parts.

    Parts are what gradients are accumulated over. Raises ValueError if there is no picture, or if they cannot be parted
    equally.
    """
    if parts < 1 or len(items) % parts or not items:
        raise ValueError(f"a batch of {len(items)} pictures has no {parts} equal parts with at least one picture each")
    count = len(items) // parts
    return [_padded(items[start : start + count]) for start in range(0, len(items), count)]


def _padded(items: Sequence[tuple[Tensor, Target]]) -> TrainingBatch:
    images, padding_mask = pad_images([image for image, _ in items], CANVAS_MULTIPLE)
    return TrainingBatch(images, padding_mask, [target for _, target in items])


class AspectRatioBatchSampler(Sampler[list[Draw]]):
    """Batches of pictures with about the same aspect ratio, so that little of their canvas is padding.

    The same seed and epoch give the same batches in the same order, whatever the number of processes that share
    each. Every index comes once an epoch, unless `drop_last` leaves out the last, smaller batch. What does not fill a
    batch of its own aspect ratio is batched with the nearest others.

    The seed of a draw depends on the sampler's seed, the epoch and the place in the epoch only, so a picture is
    augmented the same whatever loads it, and whether or not the run was interrupted before.
    """

    def __init__(
        self,
        sizes: Sequence[tuple[int, int]],
        batch_size: int,
        *,
        seed: int = 0,
        drop_last: bool = False,
        process: int = 0,
        processes: int = 1,
        start: int = 0,
        factors: NDArray[np.float64] | None = None,
    ) -> None:
        """Sample from pictures of the given (height, width).

        Args:
            sizes: of every picture.
            batch_size: pictures in a batch of all processes together.
            seed: of the order and of the draws, 0 or more.
            drop_last: leave out what does not fill a batch.
            process: which of the processes this is.
            processes: how many share each batch: process p of P gets every P-th draw from its p-th.
            start: batches that the run has done already. Epoch `start // len(self)` begins after its first
                `start % len(self)`; other epochs are whole.
            factors: how often each picture comes in an epoch, in the mean, by default once (see `repeats`).

        Raises:
            ValueError: if an epoch would have no batch, or a batch cannot be shared equally.
        """
        shown = len(sizes) if factors is None else epoch_length(factors)  # an epoch
        if batch_size < 1 or shown < (batch_size if drop_last else 1):
            raise ValueError(f"{shown} pictures do not make a batch of {batch_size}")
        if start < 0 or not 0 <= process < processes:
            raise ValueError(f"there is no process {process} of {processes}, or no batch {start} to start with")
        last = 0 if drop_last else shown % batch_size
        if batch_size % processes or last % processes:
            uneven = batch_size if batch_size % processes else last
            raise ValueError(f"{processes} processes cannot share a batch of {uneven} pictures equally")
        self.batch_size = batch_size
        self.seed = seed
        self.drop_last = drop_last
        self.process = process
        self.processes = processes
        self.start = start
        self._factors = factors
        self._shown = shown
        self._ratios = np.array([width / height for height, width in sizes])
        self.epoch = start // len(self)  # a loader may ask for batches before it is told the epoch

    @property
    def sampler(self) -> AspectRatioBatchSampler:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Number of batches of a whole epoch."""
        count = self._shown / self.batch_size
        return math.floor(count) if self.drop_last else math.ceil(count)

    def __iter__(self) -> Iterator[list[Draw]]:
        """This process's share of the batches of the present epoch that are not done yet."""
        # A stream of its own, so that the number of draws does not change the order of the pictures.
        stream = np.random.default_rng([self.seed, self.epoch, 1])
        seeds = stream.integers(2**63, size=(len(self), self.batch_size)).tolist()
        epoch, done = divmod(self.start, len(self))
        batches = list(zip(self._batches(), seeds, strict=True))
        for batch, batch_seeds in batches[done if epoch == self.epoch else 0 :]:
            draws = [Draw(index, seed) for index, seed in zip(batch, batch_seeds, strict=False)]
            yield draws[self.process :: self.processes]

    def _batches(self) -> list[list[int]]:
        """All batches of the present epoch, of all processes."""
        rng = np.random.default_rng([self.seed, self.epoch])
        shown = np.arange(self._shown) if self._factors is None else repeated(self._factors, rng)
        batches, rest = self._full_batches(rng.permutation(shown))
        rest.sort(key=lambda index: float(self._ratios[index]))
        batches += [rest[start : start + self.batch_size] for start in range(0, len(rest), self.batch_size)]
        if self.drop_last and len(batches[-1]) < self.batch_size:
            batches.pop()
        return [batches[turn] for turn in rng.permutation(len(batches)).tolist()]

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
