"""Figures and pictures of a run in TensorBoard, Weights & Biases and MLflow, each where there is no network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from model.training.logs.loggers import close, keep_ids, log_picture, open_loggers

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


def test_a_run_that_goes_on_is_the_same_run_of_mlflow(out: Path) -> None:
    pytest.importorskip("mlflow")
    for step in (1, 2):
        (logger,) = open_loggers(["mlflow"], out, goes_on=step > 1)
        keep_ids([logger], out)
        logger.log_hyperparams({"lr": 0.1, "steps": step})
        logger.log_metrics({"AP": 0.5}, step=step)
        logger.finalize("success")
    (ap,) = (out / "mlruns").glob("*/*/metrics/AP")
    assert [line.split()[2] for line in ap.read_text().splitlines()] == ["1", "2"]
    (steps,) = (out / "mlruns").glob("*/*/params/steps")
    assert steps.read_text() == "1"
    assert (steps.parents[1] / "tags/steps").read_text() == "2"
    assert (
        "FINISHED" in (steps.parents[1] / "meta.yaml").read_text()
        or "status: 3" in (steps.parents[1] / "meta.yaml").read_text()
    )


def test_another_run_is_another_one_of_mlflow_and_one_that_is_gone_is_told(out: Path) -> None:
    pytest.importorskip("mlflow")
    for _ in range(2):
        keep_ids(open_loggers(["mlflow"], out), out)
    assert len(list((out / "mlruns").glob("*/*/meta.yaml"))) == 2
    shutil.rmtree(out / "mlruns")
    with pytest.raises(ValueError, match=r"--logger mlflow: .*loggers\.json"):
        keep_ids(open_loggers(["mlflow"], out, goes_on=True), out)


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_run_of_weights_and_biases(out: Path) -> None:
    pytest.importorskip("wandb")
    for step in (1, 2):
        loggers = open_loggers(["wandb"], out, goes_on=step > 1)
        keep_ids(loggers, out)
        loggers[0].log_metrics({"AP": 0.5}, step=step)
        close(loggers)
    assert len({path.stem for path in (out / "wandb").glob("offline-run-*/run-*.wandb")}) == 1


@pytest.mark.slow
def test_weights_and_biases_has_a_run_to_upload_later(out: Path) -> None:
    pytest.importorskip("wandb")
    log_something("wandb", out)
    assert list((out / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_package_that_is_missing_is_named_with_what_to_type(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    with pytest.raises(ValueError, match=r"^--logger wandb needs a package .*: .*pip install .*\[wandb\]"):
        open_loggers(["wandb"], out)
