"""The file that a run which has stopped goes on from, and when it is written."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from model.runtime.whole_file import whole_file
from model.training.stopping import Interrupted, StopRequest

RESUME_FILE = "resume/last.ckpt"  # in the folder of a run
RUN_KEY = "detr.run"  # of what a file to resume from says of its run


class ResumeFile(lightning.Callback):
    """Writes `OUT/resume/last.ckpt`: every so many steps, before a validation, before the last step, and when asked to
    stop, which ends the run with `Interrupted`.

    So a run that stops anywhere, in a validation or while its last weights are written, loses no more than a step.
    """

    def __init__(self, out: Path, every: int, validate_every: int | None, stop: StopRequest, about: str) -> None:
        """Write every so many steps, with what there is to say of the run.

        `validate_every` is how often the trainer validates, None for never.
        """
        self.path = out / RESUME_FILE
        self.about = about
        self.every = every
        self.validate_every = validate_every
        self.stop = stop

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Do the validation that was due where the run goes on; the file to resume from was written before it."""
        self.stop.wait()
        if trainer.global_step and self._validates(trainer.global_step):
            _validate(trainer)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Write the state of the run as it is after this step. Raises Interrupted after a signal."""
        step, last = trainer.global_step, trainer.max_steps
        if step == last:  # the weights themselves are written next
            return
        stopped = self._stopped(trainer)
        if stopped or step % self.every == 0 or step == last - 1 or self._validates(step):
            trainer.save_checkpoint(self.path, weights_only=False)
        # Lightning's own way to stop would validate first, which may take long.
        if stopped:
            raise Interrupted(self.stop.number or signal.SIGTERM, f"stopped at step {step} of {last}")

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what there is to say of the run."""
        checkpoint[RUN_KEY] = self.about

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        """Leave a validation after a signal; processes that share it have to end it together."""
        if self.stop.number is not None and trainer.world_size == 1:
            raise Interrupted(self.stop.number, "stopped in a validation")

    def _validates(self, step: int) -> bool:
        return self.validate_every is not None and step % self.validate_every == 0

    def _stopped(self, trainer: lightning.Trainer) -> bool:
        """Whether any process was asked to stop: all of them stop after the same step."""
        asked = self.stop.number is not None
        return asked if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(asked, all=False)


class WholeFiles(TorchCheckpointIO):
    """Writes a file beside its place first, where Lightning copies it there from the system's folder for such files.

    Nor is there a second copy of it in memory meanwhile.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a file that takes the place of an older one when it is whole."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with whole_file(Path(path)) as unfinished:
            torch.save(checkpoint, unfinished)


def _validate(trainer: lightning.Trainer) -> None:
    """Validate as Lightning does after a step, which it leaves out where a run that is resumed begins."""
    loop, epoch = trainer.fit_loop.epoch_loop.val_loop, trainer.fit_loop.epoch_progress.current
    completed = epoch.completed
    # A run that goes on behind the last batch of an epoch is counted into the next one already.
    epoch.completed = (trainer.global_step - 1) // int(trainer.num_training_batches)
    loop.restarting = False  # from the first picture
    trainer.validating = True
    loop.run()
    trainer.training = True
    epoch.completed = completed
