"""Where the figures of a run go besides its own log: TensorBoard, Weights & Biases, MLflow, by Lightning's loggers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from PIL import Image

from model.runtime.installing import install_command

PROJECT = "detr"  # of Weights & Biases, and experiment of MLflow, unless their own variables name another


def _mlflow(out: Path) -> Logger:
    # Files need no database and no server; MLflow asks for a confirmation, because it adds no features to this store.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return MLFlowLogger(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=out.resolve().name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", (out / "mlruns").resolve().as_uri()),
    )


def _wandb(out: Path) -> Logger:
    return WandbLogger(out.resolve().name, out, project=os.environ.get("WANDB_PROJECT", PROJECT))


LOGGERS: dict[str, Callable[[Path], Logger]] = {
    "tensorboard": lambda out: TensorBoardLogger(out, "tensorboard", ""),
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def open_loggers(names: Sequence[str], out: Path) -> list[Logger]:
    """The loggers of these names for a run whose folder, which there has to be, is `out`.

    TensorBoard writes to `out/tensorboard`, the others to where their own environment variables say, or below `out`.
    Raises ValueError where a logger's package is not installed.
    """
    loggers = []
    for name in dict.fromkeys(names):
        try:
            loggers.append(LOGGERS[name](out))
        except ModuleNotFoundError as error:
            needed = install_command(f"detr-serve[{name}]")
            raise ValueError(f"--logger {name} needs a package that is not installed: {needed}") from error
    return loggers


def log_picture(logger: Logger, name: str, picture: NDArray[np.uint8], step: int) -> None:
    """Hand a picture, RGB uint8 [height, width, 3], to a logger that takes pictures."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [picture], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, Image.fromarray(picture), f"{name}/step-{step:06}.jpg")


def close(loggers: Sequence[Logger]) -> None:
    """Have everything written before the command ends."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
