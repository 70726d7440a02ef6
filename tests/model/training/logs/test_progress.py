"""What a person sees of a run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from model.training.logs.progress import LOSSES, RunProgress
from tests.model.training.tiny_run import Tiny, ones, tiny_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning with the latest torch
    pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable"),  # all its batches are alike
]


class Terminal(io.StringIO):
    """What takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


class SaveAt(lightning.Callback):
    """Saves the state of the run after a step."""

    def __init__(self, file: Path, step: int) -> None:
        self.file = file
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file, weights_only=False)


class Talkative(lightning.Callback):
    """Has something to say after every step."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.progress_bar_callback.print("half", "way")


class Clock(lightning.Callback):
    """Every training step takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def on_train_batch_start(self, *_: Any) -> None:
        self.now += self.seconds


def train(
    stream: io.StringIO,
    steps: int,
    *callbacks: lightning.Callback,
    seconds: float = 1.0,
    every_seconds: float = 60.0,
    **options: Any,
) -> lightning.Trainer:
    """Train `Tiny`, so many seconds a step, validated after every fourth step."""
    clock = Clock(seconds)
    progress = RunProgress(stream=stream, clock=clock, every_steps=1, every_seconds=every_seconds)
    trainer = tiny_trainer(steps, clock, *callbacks, progress, enable_progress_bar=True, **options)
    trainer.fit(Tiny(), ones(), ones())
    return trainer


def states(terminal: Terminal) -> list[str]:
    """Every state that the bar was drawn in."""
    return [state.strip() for state in re.split(r"[\r\n]", terminal.getvalue()) if state.strip()]


def test_one_bar_counts_all_steps_of_the_run_over_its_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawn at every step, however fast they follow one another.
    monkeypatch.setattr("model.training.logs.progress.Tqdm", partial(Tqdm, mininterval=0, miniters=1))
    terminal = Terminal()
    train(terminal, 10)
    counts = [int(found[1]) for state in states(terminal) if (found := re.search(r"(\d+)/10 ", state))]
    assert counts == sorted(counts)
    assert set(counts) == set(range(11))
    assert terminal.getvalue().count("\n") == 1, "there is more than one bar"


def test_the_bar_has_the_losses_the_last_ap_and_the_time_left() -> None:
    terminal = Terminal()
    train(terminal, 6)
    last = states(terminal)[-1]
    assert re.search(r"training: 100%.* 6/6 \[\d\d:\d\d<00:00", last)
    assert re.search(r", AP 0\.040  loss 0\.\d+  ce 0\.\d+\]$", last)


class AllLosses(lightning.Callback):
    """A run with every figure there is, each as wide as it gets."""

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, *_: Any) -> None:
        module.log_dict(dict.fromkeys(LOSSES, 1.234e-05))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        module.log_dict({"AP_mask": 0.25, "PQ": 0.75})


@pytest.mark.parametrize("columns", [80, 60, 200])
def test_the_bar_fits_the_terminal_with_ap_readable(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.get_terminal_size", lambda *_: os.terminal_size((columns, 24)))
    monkeypatch.setattr(Terminal, "fileno", lambda self: 1)
    monkeypatch.setattr("model.training.logs.progress.Tqdm", partial(Tqdm, mininterval=0, miniters=1))
    terminal = Terminal()
    train(terminal, 10, AllLosses())
    shown = states(terminal)
    assert max(map(len, shown)) <= columns
    assert all(state.endswith("]") for state in shown), "a figure is cut off"
    validated = [state for state in shown if re.search(r" [5-9]/10 ", state)]
    assert validated
    assert all(", AP 0.040" in state or ", AP 0.080" in state for state in validated)
    assert any(state.startswith("validating 3/4") for state in validated)
    if columns == 200:
        assert "dice 1.23e-05" in shown[-1]


def test_the_bar_says_how_far_a_validation_is() -> None:
    terminal = Terminal()
    train(terminal, 5)
    assert any(state.startswith("validating 3/4:") for state in states(terminal))
    assert states(terminal)[-1].startswith("training:")


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    saved = SaveAt(tmp_path / "last.ckpt", 5)
    train(Terminal(), 8, saved)
    terminal, lines = Terminal(), io.StringIO()
    for stream in (terminal, lines):
        trainer = tiny_trainer(8, RunProgress(stream=stream, every_seconds=0), enable_progress_bar=True)
        trainer.fit(Tiny(), ones(), ones(), ckpt_path=saved.file, weights_only=True)
    assert " 5/8 " in states(terminal)[0]
    assert lines.getvalue().startswith("step 6/8")


def test_without_a_terminal_there_is_a_line_at_first_now_and_then_at_validations_and_at_last() -> None:
    stream = io.StringIO()
    train(stream, 12, every_seconds=5)
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 1/12", "step 4/12", "step 8/12", "step 12/12"]
    assert all(re.search(r"  loss [\d.]+  ce 0\.\d+  ", line) for line in lines)
    assert [re.findall(r"AP [\d.]+", line) for line in lines] == [[], ["AP 0.040"], ["AP 0.080"], ["AP 0.120"]]


def test_lines_come_as_often_as_asked() -> None:
    stream = io.StringIO()
    train(stream, 11, every_seconds=2, limit_val_batches=0)
    steps = [int(line.split("/")[0].removeprefix("step ")) for line in stream.getvalue().splitlines()]
    assert steps == [1, 3, 5, 7, 9, 11]


def test_a_line_says_the_pace_and_the_time_left() -> None:
    stream = io.StringIO()
    train(stream, 3, seconds=150, every_seconds=1e9)
    first, last = stream.getvalue().splitlines()
    assert first.endswith("  150 s/step  05:00 left")
    assert last.startswith("step 3/3  ")
    assert last.endswith("  150 s/step  00:00 left")


def test_only_process_0_shows_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning.Trainer, "is_global_zero", False)
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    terminal, stream = Terminal(), io.StringIO()
    for out in (terminal, stream):
        train(out, 5, Talkative())
        assert out.getvalue() == ""


def test_a_message_does_not_tear_the_bar() -> None:
    terminal, stream = Terminal(), io.StringIO()
    for out in (terminal, stream):
        train(out, 2, Talkative())
    assert states(terminal).count("half way") == stream.getvalue().splitlines().count("half way") == 2


def test_the_bar_is_closed_where_training_fails() -> None:
    class Failing(lightning.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise FloatingPointError("the loss is not finite")

    terminal = Terminal()
    with pytest.raises(FloatingPointError):
        train(terminal, 5, Failing())
    assert terminal.getvalue().endswith("\n")


def test_validation_after_training_is_shown_too() -> None:
    stream = io.StringIO()
    trainer = train(stream, 3)
    trainer.validate(trainer.lightning_module, ones(), verbose=False)
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("step 3/3  ")
    assert "AP 0.030" in last
