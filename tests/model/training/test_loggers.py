"""Figures and pictures of a run in TensorBoard, Weights & Biases and MLflow, each where there is no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.training.loggers import close, log_picture, open_loggers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of their own insides
PICTURE = np.zeros((4, 6, 3), np.uint8)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run, without anything that says where figures should go instead."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def log_something(name: str, out: Path) -> None:
    (logger,) = open_loggers([name, name], out)
    logger.log_hyperparams({"lr": 0.1, "freeze": ["stem"]})
    logger.log_metrics({"AP": 0.5, "AP_mask": float("nan")}, step=7)
    log_picture(logger, "samples", PICTURE, 7)
    logger.finalize("success")
    close([logger])


def test_tensorboard_has_a_file_of_events(out: Path) -> None:
    log_something("tensorboard", out)
    assert list((out / "tensorboard").glob("events.*"))


def test_mlflow_has_the_figures_in_files_below_the_run(out: Path) -> None:
    pytest.importorskip("mlflow")
    log_something("mlflow", out)
    (ap,) = (out / "mlruns").glob("*/*/metrics/AP")
    assert ap.read_text().split()[1:] == ["0.5", "7"]
    (settings,) = (out / "mlruns").glob("*/*/params/freeze")
    assert "stem" in settings.read_text()
    assert list((out / "mlruns").glob("*/*/artifacts/samples/*.jpg"))


@pytest.mark.slow
def test_weights_and_biases_has_a_run_to_upload_later(out: Path) -> None:
    pytest.importorskip("wandb")
    log_something("wandb", out)
    assert list((out / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_package_that_is_missing_is_named_with_what_to_type(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"^--logger wandb needs a package .*: .*pip install .*\[wandb\]"):
        open_loggers(["wandb"], out)
