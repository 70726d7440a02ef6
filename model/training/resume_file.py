"""The file that an interrupted run continues from: when it is written, and whether a run may continue from it."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from torch import Tensor

from model.checkpoint.errors import CheckpointError
from model.checkpoint.files import load_file
from model.training.module import SETTINGS_KEY, TrainingModule

# Settings that a run may change when it continues; any other would make it another run.
FREE = {"epochs", "steps", "evaluate_every", "log_every", "save_every", "workers"}


class Interrupted(Exception):  # noqa: N818 - not an error
    """The run was asked to stop; the message says how to go on."""


class ResumeFile(lightning.Callback):
    """Writes `OUT/resume/last.ckpt` every so many steps, and when the run is asked to stop.

    The first SIGINT or SIGTERM ends the run after the present step, with `Interrupted`; a second is left to Python.
    """

    def __init__(self, out: Path, every: int) -> None:
        self.path = out / "resume" / "last.ckpt"
        self.every = every
        self.stopped = False
        self._handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen for signals; several processes would not all stop at one step, and leave it to their launcher."""
        if trainer.world_size == 1:
            self._handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
            for number in self._handlers:
                signal.signal(number, self._stop)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Write the state of the run as it is after this step."""
        if self.stopped or trainer.global_step % self.every == 0:
            trainer.save_checkpoint(self.path, weights_only=False)
        # Lightning's own way to stop would validate first, which may take long.
        if self.stopped and trainer.global_step < trainer.max_steps:
            raise Interrupted(f"stopped at step {trainer.global_step}: go on with --resume {self.path}")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Listen no more."""
        self._restore()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}


def check_resume(path: Path, module: TrainingModule) -> int:
    """The step that a file to resume from is at.

    Raises CheckpointError where it cannot be read, ValueError where this run cannot continue from it.
    """
    try:
        content = load_file(path)[1]
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    state, step = content.get("state_dict"), content.get("global_step")
    if not isinstance(state, dict) or not isinstance(step, int):
        raise ValueError(f"{path.name} is no file to resume from: those are in OUT/resume")
    _check_settings(path.name, content.get(SETTINGS_KEY, {}), module)
    if _shapes(state) != _shapes(module.state_dict()):
        raise ValueError(f"{path.name} was written by a run with another network or stage")
    if step >= module.steps:
        raise ValueError(f"{path.name} is at step {step} already: the run must be longer than that (--steps, --epochs)")
    return step


def _check_settings(name: str, found: dict[str, Any], module: TrainingModule) -> None:
    for field, wanted in asdict(module.config).items():
        written = found.get(field, wanted)
        if field not in FREE and written != wanted:
            option = f"--{field.replace('_', '-')}"
            raise ValueError(f"{name} was written with {option} {written} and can only go on with that")


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}
