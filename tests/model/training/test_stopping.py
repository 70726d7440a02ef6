"""A run that is asked to stop, at whatever moment, ends by itself, says how to go on, and loses nothing."""

from __future__ import annotations

import importlib
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.checkpoint.reading import read_checkpoint
from model.network.config import PRESETS
from model.runtime.resize_rule import Edges
from model.training.logs.log import read_log
from model.training.stopping import Interrupted, StopRequest, stoppable
from service.cli import main
from tests.model.networks import SMALL

STEPS = 5  # of which the third and the last are validated, and so an epoch's last and one in the middle
SETTINGS = ("--batch-size", "2", "--log-every", "1", "--save-every", "100", "--warmup-steps", "4", "--workers", "0",
            "--ema", "0.9", "--augment", "flip", "crop", "--evaluate-every", "1", "--samples", "2")  # fmt: skip


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS, "detr-demo", replace(SMALL, resize=Edges(64, 96)))


def train(root: Path, out: Path, *options: str) -> int:
    words = ["train", "--data", "shapes", "--root", str(root), "--out", str(out), "--steps", str(STEPS)]
    return main([*words, *SETTINGS, *options])


def lines(out: Path) -> list[dict[str, Any]]:
    """Everything that a run has logged, but for the seconds that it took."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_log(out / "log.jsonl")]


@pytest.fixture(scope="module")
def uninterrupted(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "detr-demo", replace(SMALL, resize=Edges(64, 96)))
        assert train(tiny_shapes, out) == 0
    return out


def signal_at_call(patch: pytest.MonkeyPatch, where: str, number: int, call: int) -> None:
    """Have a signal come while a function is called for the so-manieth time, from 1."""
    module, _, name = where.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = name.split(".")
    for each in owners:
        owner = getattr(owner, each)
    real, calls = getattr(owner, name), []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(number)
        return real(*args, **kwargs)

    patch.setattr(owner, name, called)


MOMENTS = {
    "the data are checked": ("model.data.check:check_picture", 3),
    "the network is built": ("model.train:starting_network", 1),
    "the first step is taken": ("model.training.module:TrainingModule.gradients", 1),
    "a step is taken": ("model.training.module:TrainingModule.gradients", 2),
    "the last step before a validation is taken": ("model.training.module:TrainingModule.gradients", 3),
    "the last step is taken": ("model.training.module:TrainingModule.gradients", 5),
    "the file to resume from is written": ("model.training.resume_file:WholeFiles.save_checkpoint", 1),
    "samples are drawn": ("model.training.samples:contact_sheet", 1),
    "a validation begins": ("model.evaluation.evaluator:Evaluator.update", 1),
    "the best weights are saved": ("model.train:save_checkpoint", 1),
    "the last validation begins": ("model.evaluation.evaluator:Evaluator.update", 2),
    "the last weights are saved": ("model.train:save_checkpoint", 3),
}
QUICK = ("the data are checked", "a step is taken", "a validation begins")


@pytest.mark.parametrize(
    "moment", [pytest.param(moment, marks=[pytest.mark.slow] * (moment not in QUICK)) for moment in MOMENTS]
)
def test_a_run_that_is_stopped_while_something_goes_on_resumes_exactly(
    moment: str, uninterrupted: Path, tiny_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    where, call = MOMENTS[moment]
    with pytest.MonkeyPatch.context() as patch:
        signal_at_call(patch, where, signal.SIGTERM, call)
        code = train(tiny_shapes, tmp_path)
    said = capsys.readouterr().err.splitlines()
    last = tmp_path / "resume" / "last.ckpt"
    if code == 0:  # it was about to end
        assert (tmp_path / "model.safetensors").exists()
        assert "last weights" in moment
    else:
        assert code == 128 + signal.SIGTERM
        assert said[-1].startswith("detr train: stopped")
        if last.exists():
            assert said[-1].endswith(f"go on with it by detr train --resume {tmp_path}")
            assert main(["train", "--resume", str(tmp_path)]) == 0
        else:
            assert said[-1].endswith("start again by the same command")
            assert train(tiny_shapes, tmp_path) == 0
    assert lines(tmp_path) == lines(uninterrupted)
    for name in ("model.safetensors", "best.safetensors"):
        one, other = (read_checkpoint(out / name).state_dict for out in (tmp_path, uninterrupted))
        assert all(torch.equal(one[key], other[key]) for key in other), name
    assert [path.name for path in last.parent.iterdir()] == ["last.ckpt"]


@pytest.fixture
def later() -> list[float]:
    """What the clock of a request to stop shows; a test may set it."""
    return [100.0]


@pytest.fixture
def stop(later: list[float]) -> StopRequest:
    return StopRequest(clock=lambda: later[0])


@pytest.fixture
def listening(stop: StopRequest) -> Any:
    stop.listen()
    yield stop
    stop.restore()


def test_before_anybody_looks_a_signal_raises_where_it_comes(listening: StopRequest) -> None:
    with pytest.raises(Interrupted) as raised:
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.number == signal.SIGTERM
    with pytest.raises(Interrupted):  # though something has caught it
        listening.wait()


def test_later_the_first_signal_is_looked_at_and_the_second_raises(
    listening: StopRequest, later: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    listening.wait()
    signal.raise_signal(signal.SIGINT)
    assert listening.number == signal.SIGINT
    assert "a second signal stops at once" in capfd.readouterr().err
    signal.raise_signal(signal.SIGTERM)  # which belongs to the first
    later[0] += 2
    with pytest.raises(Interrupted, match="at once"):
        signal.raise_signal(signal.SIGINT)


def test_what_fails_where_a_signal_has_raised_is_no_error() -> None:
    def tidy_up() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise RuntimeError("it is in no state to be tidied up")

    with pytest.raises(Interrupted, match="stopped at once"), stoppable():
        tidy_up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_given_back_and_those_that_are_to_be_ignored_stay_so(number: int) -> None:
    before: Callable[..., Any] | int | None = signal.signal(number, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            signal.raise_signal(number)
            assert stop.number is None
        signal.signal(number, signal.SIG_DFL)
        with stoppable():
            assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
