"""Where the figures of a run go besides its own log: TensorBoard, Weights & Biases, MLflow, by Lightning's loggers."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from PIL import Image

from model.runtime.installing import install_command

PROJECT = "detr"  # of Weights & Biases, and experiment of MLflow, unless their own variables name another
IDS_FILE = "loggers.json"  # in the folder of a run: what the others call it, by where they keep it


class _MLflow(MLFlowLogger):
    """Takes the settings of a run that goes on. MLflow changes no parameter, so what is another now becomes a tag."""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log settings."""
        given = params if isinstance(params, dict) else vars(params)
        known = self.experiment.get_run(self.run_id).data.params
        super().log_hyperparams({name: value for name, value in given.items() if name not in known})
        for name in given.keys() & known.keys():
            if str(given[name])[:250] != known[name]:
                self.experiment.set_tag(self.run_id, name, str(given[name]))


def _mlflow(out: Path, run_id: str | None) -> Logger:
    # Files need no database and no server; MLflow asks for a confirmation, because it adds no features to this store.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return _MLflow(
        os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=out.resolve().name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", (out / "mlruns").resolve().as_uri()),
        run_id=run_id,
    )


def _wandb(out: Path, run_id: str | None) -> Logger:
    return WandbLogger(out.resolve().name, out, project=os.environ.get("WANDB_PROJECT", PROJECT), id=run_id)


LOGGERS: dict[str, Callable[[Path, str | None], Logger]] = {
    "tensorboard": lambda out, _: TensorBoardLogger(out, "tensorboard", ""),
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def open_loggers(names: Sequence[str], out: Path, *, goes_on: bool = False) -> list[Logger]:
    """The loggers of these names for a run whose folder, which there has to be, is `out`.

    TensorBoard writes to `out/tensorboard`, the others to where their own environment variables say, or below `out`.
    A run that goes on is the same run to them, where they have it.

    Raises ValueError where a logger's package is not installed.
    """
    ids = _kept_ids(out) if goes_on else {}
    loggers = []
    for name in dict.fromkeys(names):
        try:
            loggers.append(LOGGERS[name](out, ids.get(_place(name))))
        except ModuleNotFoundError as error:
            needed = install_command(f"detr-serve[{name}]")
            raise ValueError(f"--logger {name} needs a package that is not installed: {needed}") from error
    return loggers


@rank_zero_only
def keep_ids(loggers: Sequence[Logger], out: Path) -> None:
    """Note what the loggers call this run, so that it can go on there. They begin it, if they have not yet.

    Raises ValueError where the run that goes on is not there any more.
    """
    ids = {}
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            ids[_place("mlflow")] = _begun(logger)
        elif isinstance(logger, WandbLogger):
            ids[_place("wandb")] = logger.experiment.id
    if ids:
        (out / IDS_FILE).write_text(json.dumps(_kept_ids(out) | ids, indent=2) + "\n", encoding="utf-8")


def _begun(logger: MLFlowLogger) -> str | None:
    try:
        run_id: str | None = logger.run_id
        logger.experiment.update_run(run_id, status="RUNNING")
    except Exception as error:  # its stores raise what they like
        reason = str(error).splitlines()[0]
        raise ValueError(f"--logger mlflow: {reason} (a run that goes on is named in {IDS_FILE})") from error
    return run_id


def _place(name: str) -> str:
    """Where a logger keeps runs: ids mean nothing to another of MLflow's stores."""
    return " at ".join(filter(None, (name, os.environ.get("MLFLOW_TRACKING_URI") if name == "mlflow" else None)))


def _kept_ids(out: Path) -> dict[str, str]:
    file = out / IDS_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


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
