"""A program: the gradients of one optimizer step, as this process sees them, of a world of one or more processes.

`torchrun --nproc-per-node N gradients_of_a_step.py ROOT OUT STAGE ACCUMULATE N` trains for one step on the data set in
ROOT, and process 0 writes the gradients to OUT.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import lightning
import torch
from torch import Tensor

from model.data.formats.folders import open_dataset
from model.network.nested_tensor import NestedTensor, normalize
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization
from model.runtime.resize_rule import Edges
from model.training import module
from model.training.data import TrainingData
from model.training.settings.config import TrainConfig
from tests.model.networks import SMALL, filled

# Batch statistics are those of a process, and dropout draws in every process: neither can be the same.
NETWORK = replace(SMALL, frozen_batch_norm=True, resize=Edges(64, 96))


class Recorded(module.TrainingModule):
    """Keeps what the optimizer is given, before it is clipped."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Write it in process 0."""
        gradients = {name: p.grad for name, p in self.network.named_parameters() if p.grad is not None}
        if self.global_rank == 0:
            torch.save(gradients, OUT)


def normalize_double(
    images: Tensor, padding_mask: Tensor, normalization: Normalization = IMAGENET_NORMALIZATION
) -> NestedTensor:
    """What the network takes, in float64: in float32 a deep network's gradients differ by 1e-4 from rounding alone."""
    return NestedTensor(normalize(images, padding_mask, normalization).tensors.double(), padding_mask)


def main(root: Path, stage: str, accumulate: int, processes: int) -> None:
    """Take one step with as many processes as there are."""
    masks = stage != "detection"
    config = TrainConfig(
        stage=stage,  # type: ignore[arg-type]
        epochs=None,
        steps=1,
        batch_size=4,
        accumulate=accumulate,
        augment=("flip",),
        evaluate_every=0,
        workers=0,
    )
    data = open_dataset("shapes", root, "train", masks=masks)
    network = filled(replace(NETWORK, masks=masks))
    network.double().train()
    loaders = TrainingData(data, None, NETWORK.resize, config)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        max_steps=1,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(Recorded(network, NETWORK.num_classes, config, 1), datamodule=loaders)


if __name__ == "__main__":
    OUT = Path(sys.argv[2])
    warnings.simplefilter("ignore")
    module.normalize = normalize_double  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
