"""Which batches a process sees: its share of every training batch, and of the validation pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning
from torch.utils.data import DataLoader

from model.data.coco_dataset import CocoDataset
from model.data.collate import AspectRatioBatchSampler, collate
from model.data.evaluation_set import EvaluationSet, collate_evaluation
from model.data.padding import PaddingRatios, padding_ratios
from model.data.training_set import TrainingSet
from model.data.transforms import train_transform
from model.runtime.preprocess import ResizeRule
from model.training.config import TrainConfig

EVALUATION_BATCH = 4  # pictures a process; the answer does not depend on it


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
        self.transform = train_transform(rule, multi_scale=config.multi_scale, crop=config.crop)
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
        )

    def padding(self) -> PaddingRatios:
        """How much of what a process computes at once is padding, were it the only process."""
        pictures = max(1, self.config.batch_size // self.config.accumulate)
        return padding_ratios(self.train.sizes, self.transform.rules, pictures, self.config.seed)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches of like aspect ratio, augmented, each a list of parts."""
        assert self.trainer is not None
        return DataLoader(
            TrainingSet(self.train, self.transform),
            batch_sampler=self.sampler(self.trainer.global_rank, self.trainer.world_size, self.trainer.global_step),
            collate_fn=partial(collate, parts=self.config.accumulate),
            num_workers=self.config.workers,
            persistent_workers=self.config.workers > 0,
            pin_memory=self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator",
        )

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Every picture once, in all processes together."""
        if self.val is None:
            return []
        assert self.trainer is not None
        return DataLoader(
            EvaluationSet(self.val, self.rule),
            batch_size=EVALUATION_BATCH,
            sampler=range(self.trainer.global_rank, len(self.val), self.trainer.world_size),
            collate_fn=collate_evaluation,
            num_workers=self.config.workers,
        )
