"""A moving average of the weights beside the weights themselves: which of the two the module holds, and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

Tensors = tuple[Tensor, ...] | list[Tensor]
AVERAGED, RAW = 0, 1  # validation loaders: the pictures are answered with either weights


class MovingAverage(WeightAveraging):
    """Averages the weights after every step, and has a validation judge the average first and then the weights.

    The average begins as an average of few steps: after n of them it keeps (1 + n) / (10 + n) of itself, until that is
    the decay. Otherwise it would hold the weights of the start for thousands of steps. After training the module holds
    the average.
    """

    def __init__(self, decay: float) -> None:
        """Keep this share of the average, from 0 to 1, in each step."""
        super().__init__(multi_avg_fn=ramped(decay))
        self.in_module = RAW
        self._before = RAW  # a validation

    def use(self, module: lightning.LightningModule, weights: int) -> None:
        """Have the module hold the average (AVERAGED) or the weights that learn (RAW)."""
        if weights != self.in_module:
            self._swap_models(module)
            self.in_module = weights

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remember what to go on with."""
        self._before = self.in_module

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = AVERAGED,
    ) -> None:
        """Answer with the weights that the loader is for."""
        self.use(pl_module, dataloader_idx)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on with what there was."""
        self.use(pl_module, self._before)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Leave the average in the module."""
        self.use(pl_module, AVERAGED)


def ramped(decay: float) -> Callable[[Tensors, Tensors, Tensor], None]:
    """Moves averages to the weights beside them, by how many steps are averaged already.

    Whole numbers, which count what a layer has seen, become those of the weights.
    """

    @torch.no_grad()
    def move(averages: Tensors, weights: Tensors, count: Tensor) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, weights)
            return
        kept = ((1 + count) / (10 + count)).clamp(max=decay)
        steps = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(steps, 1 - kept)
        torch._foreach_add_(averages, steps)

    return move
