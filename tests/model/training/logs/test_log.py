"""The log of a run as JSON lines: what is in it, and what a run that was killed and resumed makes of it."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from itertools import accumulate
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.rank_zero import rank_zero_only

from model.training.logs.log import RunLog, read_log
from tests.model.training.tiny_run import Tiny, ones, tiny_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning with the latest torch
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),  # every batch of it is known here
]


class KillError(Exception):
    """What stands for a signal that leaves no time to tidy up."""


class KillAndSave(lightning.Callback):
    """Saves after one step and dies after another, which is logged no more."""

    def __init__(self, folder: Path, save_at: int, kill_at: int) -> None:
        self.file = folder / "last.ckpt"
        self.save_at = save_at
        self.kill_at = kill_at

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.file, weights_only=False)
        if trainer.global_step == self.kill_at:
            raise KillError


def run(
    path: Path, steps: int, *callbacks: lightning.Callback, resume: Path | None = None, **options: Any
) -> lightning.Trainer:
    """Train `Tiny` to a step, logging to a file; every epoch is validated."""
    module = Tiny()
    resumed_step = torch.load(resume, weights_only=True)["global_step"] if resume else None
    logger = RunLog(path, lambda: module.global_step, resumed_step=resumed_step)
    trainer = tiny_trainer(steps, *callbacks, logger=logger, **options)
    logger.log_hyperparams({"steps": steps})
    trainer.fit(module, ones(), ones(), ckpt_path=resume, weights_only=True)
    return trainer


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


def logged(path: Path, step: int = 0, resumed_step: int | None = None) -> RunLog:
    return RunLog(path, lambda: step, resumed_step=resumed_step)


def test_a_run_logs_its_settings_then_every_step_and_validation(tmp_path: Path) -> None:
    run(tmp_path / "log.jsonl", 6)
    settings_line, *rest = lines(tmp_path / "log.jsonl")
    assert settings_line == {"config": {"steps": 6}}
    assert [(entry["step"], "loss" in entry, "AP" in entry) for entry in rest] == [
        *((step, True, False) for step in (1, 2, 3, 4)),
        (4, False, True),
        *((step, True, False) for step in (5, 6)),
    ]
    assert [entry["epoch"] for entry in rest] == [0, 0, 0, 0, 0, 1, 1]
    assert rest[4]["AP"] == pytest.approx(0.04)


def test_a_line_is_written_once_where_several_batches_make_a_step(tmp_path: Path) -> None:
    run(tmp_path / "log.jsonl", 2, accumulate_grad_batches=2)
    assert [entry["step"] for entry in lines(tmp_path / "log.jsonl") if "loss" in entry] == [1, 2]
    assert all("loss" in entry or "AP" in entry for entry in lines(tmp_path / "log.jsonl")[1:])


def test_validation_after_training_has_the_last_steps_number(tmp_path: Path) -> None:
    trainer = run(tmp_path / "log.jsonl", 3)
    trainer.validate(trainer.lightning_module, ones(), verbose=False)
    assert lines(tmp_path / "log.jsonl")[-1]["step"] == 3
    assert "AP" in lines(tmp_path / "log.jsonl")[-1]


@pytest.mark.parametrize(("save_at", "kill_at"), [(2, 3), (4, 7), (5, 9), (8, 9)])
def test_a_run_that_was_killed_and_resumed_logs_what_an_uninterrupted_one_does(
    tmp_path: Path, save_at: int, kill_at: int
) -> None:
    run(tmp_path / "whole.jsonl", 10)
    path = tmp_path / "log.jsonl"
    death = KillAndSave(tmp_path, save_at, kill_at)
    with pytest.raises(KillError):
        run(path, 10, death)
    assert lines(path)[-1]["step"] == kill_at - 1
    with path.open("a", encoding="utf-8") as file:
        file.write('{"step": 3, "epoch": 0, "seco')
    run(path, 10, resume=death.file)
    after = lines(path)
    steps = [entry for entry in timeless(after) if entry.get("step", 0) > save_at]
    assert steps == [entry for entry in timeless(lines(tmp_path / "whole.jsonl")) if entry.get("step", 0) > save_at]
    # The file is saved before its step is logged, and not a second time when the run goes on from there.
    losses = [entry["step"] for entry in after if "loss" in entry]
    assert losses == list(range(1, 11))
    seconds = [entry["seconds"] for entry in after if "seconds" in entry]
    assert seconds == sorted(seconds)


def test_settings_are_written_again_only_where_a_resumed_run_has_others(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logged(path).log_hyperparams(Namespace(steps=5, root=tmp_path))
    logged(path, resumed_step=0).log_hyperparams({"steps": 5, "root": tmp_path})
    assert lines(path) == [{"config": {"steps": 5, "root": str(tmp_path)}}]
    logged(path, resumed_step=0).log_hyperparams({"steps": 6})
    assert lines(path)[1:] == [{"config": {"steps": 6}}]


def test_the_clock_goes_on_where_the_last_line_that_stays_was(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    kept = {"step": 10, "epoch": 0, "seconds": 3600.5, "loss": 1.0}
    path.write_text("".join(json.dumps(entry) + "\n" for entry in (kept, kept | {"step": 11, "seconds": 7200.0})))
    logged(path, 11, resumed_step=10).log_metrics({"loss": 1.0, "epoch": 0})
    first, second = lines(path)
    assert first == kept
    assert 3600.5 <= second["seconds"] < 7200.0


def test_a_new_run_keeps_the_logs_of_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "out" / "log.jsonl"
    for number in range(3):
        logged(path).log_metrics({"number": number, "epoch": 0})
    numbers = {file.name: lines(file)[0]["number"] for file in path.parent.iterdir()}
    assert numbers == {"log-1.jsonl": 0, "log-2.jsonl": 1, "log.jsonl": 2}


def test_a_resumed_run_without_a_log_begins_one(tmp_path: Path) -> None:
    logged(tmp_path / "log.jsonl", 8, resumed_step=7).log_metrics({"loss": 1.0, "epoch": 0})
    assert [entry["step"] for entry in lines(tmp_path / "log.jsonl")] == [8]


def test_what_is_not_finite_is_null_and_tensors_are_numbers(tmp_path: Path) -> None:
    figures = {"a": math.nan, "b": torch.tensor(-math.inf), "c": torch.tensor(0.5), "epoch": torch.tensor(3.0)}
    logged(tmp_path / "log.jsonl", 2).log_metrics(figures)
    (entry,) = timeless(lines(tmp_path / "log.jsonl"))
    assert entry == {"step": 2, "epoch": 3, "a": None, "b": None, "c": 0.5}


def test_only_process_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    logged(path).log_metrics({"loss": 1.0, "epoch": 0})
    before = path.read_bytes()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = logged(path)
    logger.log_hyperparams({"steps": 5})
    logger.log_metrics({"loss": 2.0, "epoch": 0})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12), st.integers(0, 150), st.integers(0, 12))
def test_resuming_keeps_exactly_the_whole_lines_up_to_its_step(
    tmp_path_factory: pytest.TempPathFactory, strides: list[int], cut: int, resumed_step: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    steps = list(accumulate(strides))
    entries = ({"step": step, "epoch": 0, "seconds": 1.0, "loss": 0.5} for step in steps)
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    left = text[: max(0, len(text) - cut)]
    path.write_text(left)
    logged(path, 99, resumed_step=resumed_step).log_metrics({"loss": 0.25, "epoch": 1})
    kept = [step for step in steps[: left.count("\n")] if step <= resumed_step]
    assert [entry["step"] for entry in lines(path)] == [*kept, 99]


def test_reading_leaves_out_a_line_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"config": {}}\n{"step": 1}\n{"step": 2}')
    assert read_log(path) == [{"config": {}}, {"step": 1}]
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "other.jsonl")
