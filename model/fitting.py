"""Lightning's trainer around a training module: the loop, the figures it writes, and files to resume from."""

from __future__ import annotations

import warnings
from itertools import count
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader

from model.checkpoint import CheckpointError
from model.checkpoint.files import load_pickle
from model.training_module import SETTINGS_KEY, TrainConfig, TrainingModule

RESUME_EVERY = 1000  # steps
LOG_EVERY = 20  # steps
# Settings that a file to resume from brings along, whatever is asked for.
FIXED = ("stage", "lr", "lr_backbone", "weight_decay")


def fit(module: TrainingModule, batches: DataLoader[Any], out: Path, resume: Path | None = None) -> lightning.Trainer:
    """Train for the configured steps; figures go to `out/metrics.csv`, the state to `out/resume/last.ckpt`.

    Raises what `check_resume` raises, and FloatingPointError where the loss diverges.
    """
    if resume is not None:
        check_resume(resume, module)
    keep_older_figures(out)
    config = module.config
    # Always one file of one name, so that what is resumed is never an older run's.
    checkpoints = ModelCheckpoint(
        out / "resume", filename="last", every_n_train_steps=RESUME_EVERY, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        max_steps=config.steps,
        max_epochs=-1,
        precision=config.precision,
        gradient_clip_val=config.clip,
        logger=CSVLogger(out, name="", version=""),
        callbacks=[checkpoints, LearningRateMonitor("step"), TQDMProgressBar(refresh_rate=LOG_EVERY)],
        log_every_n_steps=min(LOG_EVERY, len(batches)),
        use_distributed_sampler=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers")  # --workers says how many
        warnings.filterwarnings("ignore", ".*exists and is not empty")  # --out may hold an older run
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)  # Lightning with the latest torch
        trainer.fit(module, batches, ckpt_path=resume, weights_only=True)
    return trainer


def check_resume(path: Path, module: TrainingModule) -> None:
    """Raise CheckpointError where a file cannot be read, ValueError where this run cannot continue from it."""
    try:
        content = load_pickle(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    state, step = content.get("state_dict"), content.get("global_step")
    if not isinstance(state, dict) or not isinstance(step, int):
        raise ValueError(f"{path.name} is no file to resume from: those are in OUT/resume")
    _check_settings(path.name, content.get(SETTINGS_KEY, {}), module.config)
    if _shapes(state) != _shapes(module.state_dict()):
        raise ValueError(f"{path.name} was written by a run with another network or stage")
    if step >= module.config.steps:
        raise ValueError(f"{path.name} is at step {step} already: --steps must be more than that")


def _check_settings(name: str, found: dict[str, Any], config: TrainConfig) -> None:
    for field in FIXED:
        wanted = getattr(config, field)
        if found.get(field, wanted) != wanted:
            option = f"--{field.replace('_', '-')}"
            raise ValueError(f"{name} was written with {option} {found[field]} and can only go on with that")


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def keep_older_figures(out: Path) -> None:
    """Rename figures that are there already, which the logger would delete; a run that is resumed wants both."""
    figures = out / "metrics.csv"
    if figures.exists():
        older = (out / f"metrics-{number}.csv" for number in count(1))
        figures.rename(next(path for path in older if not path.exists()))
