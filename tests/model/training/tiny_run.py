"""A training run of milliseconds, for tests of what observes one."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

EPOCH = 4  # steps


class Tiny(lightning.LightningModule):
    """Learns one number, at a rate that falls; its losses differ at every step, its AP is a hundredth of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        loss = (self.weight * batch).square().sum()
        self.log_dict({"loss": loss, "loss_ce": loss.detach() / 2})
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.log("AP", float(self.global_step) / 100)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.01)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def ones() -> DataLoader[Tensor]:
    """Every batch alike, so that a run may be resumed anywhere."""
    return DataLoader(torch.ones(EPOCH, 1))  # type: ignore[arg-type]


def tiny_trainer(steps: int, *callbacks: lightning.Callback, logger: Any = False, **options: Any) -> lightning.Trainer:
    """A trainer that says and keeps nothing of its own, and validates once before it starts."""
    defaults = {"enable_progress_bar": False, "enable_checkpointing": False, "enable_model_summary": False}
    return lightning.Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        logger=logger,
        callbacks=list(callbacks),
        log_every_n_steps=1,
        num_sanity_val_steps=1,
        **(defaults | options),
    )
