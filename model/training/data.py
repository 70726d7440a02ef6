"""What a process learns from: its share of every training batch, and of the validation pictures.

A training picture is decoded and augmented the same for the same draw. How much of the batches is padding is told, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import lightning
import torch
from torch import Tensor
from torch.utils.data import Dataset

from model.data.collate import AspectRatioBatchSampler, Draw, collate
from model.data.evaluation_set import EvaluationSet, collate_evaluation
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_files import Target
from model.data.loading import PictureLoader
from model.data.repeats import repeat_factors
from model.data.transforms import train_transform
from model.runtime.preprocess import CANVAS_MULTIPLE, round_up
from model.runtime.resize_rule import ResizeRule
from model.training.moving_average import AVERAGED, RAW
from model.training.settings.config import TrainConfig

EVALUATION_BATCH = 4  # pictures a process; the answer does not depend on it
MASKS_BATCH = 1  # the same where masks are validated: those of all queries may be computed, which takes much memory

_Augmentation = Callable[[Tensor, Target, torch.Generator], tuple[Tensor, Target]]


class TrainingSet(Dataset[tuple[Tensor, Target]]):
    """A data set as the network learns from it; its keys are the draws of an `AspectRatioBatchSampler`.

    Every random number comes from the draw's own seed, none from a global generator: which process loads a picture,
    and what it loaded before, changes nothing.
    """

    def __init__(self, data: CocoDataset, transform: _Augmentation) -> None:
        self.data = data
        self.transform = transform

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.data)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, Target]:
        """Decode and augment one item; raises what `CocoDataset` does."""
        image, target = self.data[draw.index]
        return self.transform(image, target, torch.Generator().manual_seed(draw.seed))


class TrainingData(lightning.LightningDataModule):
    """Loaders for a trainer, which says what this process's share is and how much of the run is done already."""

    def __init__(self, train: CocoDataset, val: CocoDataset | None, rule: ResizeRule, config: TrainConfig) -> None:
        """Take the pictures to train on and those to validate with.

        Raises ValueError where there are fewer pictures than a batch.
        """
        super().__init__()
        self.train = train
        self.val = val
        self.rule = rule
        self.config = config
        self.transform = train_transform(rule, config.augment)
        threshold = config.repeat_threshold
        self.factors = repeat_factors(train.objects, threshold) if threshold else None
        self.batches = len(self.sampler())  # an epoch

    def sampler(self, process: int = 0, processes: int = 1, start: int = 0) -> AspectRatioBatchSampler:
        """The batches of a process, from a step of the run on."""
        return AspectRatioBatchSampler(
            self.train.sizes,
            self.config.batch_size,
            seed=self.config.seed,
            drop_last=True,
            process=process,
            processes=processes,
            start=start,
            factors=self.factors,
        )

    def padding(self) -> PaddingRatios:
        """How much of what a process computes at once is padding, were it the only process."""
        pictures = max(1, self.config.batch_size // self.config.parts)
        return padding_ratios(self.train.sizes, self.transform.rules, pictures, self.config.seed)

    def train_dataloader(self) -> PictureLoader:
        """Shuffled batches of like aspect ratio, augmented, each a list of parts."""
        assert self.trainer is not None
        return PictureLoader(
            TrainingSet(self.train, self.transform),
            batch_sampler=self.sampler(self.trainer.global_rank, self.trainer.world_size, self.trainer.global_step),
            collate_fn=partial(collate, parts=self.config.parts),
            num_workers=self.config.workers,
            persistent_workers=self.config.workers > 0,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )

    def val_dataloader(self) -> list[PictureLoader]:
        """Every picture once, in all processes together; twice where an average of the weights is judged as well."""
        if self.val is None:
            return []
        return [self._validation(self.val) for _ in ((AVERAGED, RAW) if self.config.ema else (RAW,))]

    def _validation(self, pictures: CocoDataset) -> PictureLoader:
        assert self.trainer is not None
        return PictureLoader(
            EvaluationSet(pictures, self.rule),
            batch_size=EVALUATION_BATCH if self.config.stage == "detection" else MASKS_BATCH,
            sampler=range(self.trainer.global_rank, len(pictures), self.trainer.world_size),
            collate_fn=collate_evaluation,
            num_workers=self.config.workers,
        )


class PaddingRatios(NamedTuple):
    """Share of canvas pixels that are padding, 0 to 1, with batches of like aspect ratio and with random ones."""

    grouped: float
    ungrouped: float

    def __str__(self) -> str:
        return f"padding: {self.grouped:.1%} of the canvas ({self.ungrouped:.1%} without grouping by aspect ratio)"


def padding_ratio(
    sizes: Sequence[tuple[int, int]], rules: Sequence[ResizeRule], batches: Iterable[Sequence[Draw]]
) -> float:
    """Share of the canvases' pixels that are padding, 0 to 1.

    Args:
        sizes: (height, width) in pixels of every picture, before it is resized.
        rules: each draw takes one, chosen by its seed; crops are not considered.
        batches: what shares a canvas.

    Raises ValueError if there is no batch.
    """
    valid = total = 0
    for batch in batches:
        resized = [rules[draw.seed % len(rules)].size(*sizes[draw.index]) for draw in batch]
        height, width = (round_up(max(sides), CANVAS_MULTIPLE) for sides in zip(*resized, strict=True))
        valid += sum(h * w for h, w in resized)
        total += len(batch) * height * width
    if not total:
        raise ValueError("there is no batch whose padding could be measured")
    return 1 - valid / total


def padding_ratios(
    sizes: Sequence[tuple[int, int]], rules: Sequence[ResizeRule], batch_size: int, seed: int = 0
) -> PaddingRatios:
    """What grouping by aspect ratio saves over an epoch of batches that share one canvas each.

    Raises ValueError if there is no picture or no rule.
    """
    if not rules:
        raise ValueError("padding depends on a resize rule, and there is none")
    # Where all pictures are told to be alike, any of them may be batched together.
    alike = [(1, 1)] * len(sizes)
    samplers = (AspectRatioBatchSampler(seen, batch_size, seed=seed) for seen in (sizes, alike))
    return PaddingRatios(*(padding_ratio(sizes, rules, sampler) for sampler in samplers))
