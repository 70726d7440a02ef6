"""A run that is killed, wherever it is, and resumed takes the steps that it would have taken."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
import torch

from model.checkpoint.reading import read_checkpoint
from model.data.transforms import Augmentation
from model.training.logs.log import read_log
from tests.model.training.starting import Preloaded, Start, Started, start_process

STEPS = 8
SETTINGS = ("--steps", str(STEPS), "--batch-size", "2", "--log-every", "1", "--save-every", "1", "--warmup-steps", "4")
# Everything that has a state of its own: a moving average, augmentation, parts, workers, validation on the way.
RICH = (
    "--ema", "0.9", "--augment", *get_args(Augmentation), "--accumulate", "2",
    "--workers", "1", "--evaluate-every", "1",
)  # fmt: skip
TURNS = int(os.environ.get("TURNS", "1"))  # of the soak, of which each takes some minutes
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # which computes alike however many cores there are
started = partial(start_process, ENVIRONMENT)


def command(root: Path, out: Path, *options: str) -> list[str]:
    words = ["train", "--data", "shapes", "--root", str(root), "--out", str(out), "--samples", "0", "--skip-check"]
    return [*words, "--shortest-edge", "64", "--longest-edge", "96", *SETTINGS, *RICH, *options]


def resuming(run: Path) -> list[str]:
    return ["train", "--resume", str(run)]


@pytest.fixture(scope="module")
def preloaded() -> Iterator[Preloaded]:
    with Preloaded("model.train", ENVIRONMENT) as detr:
        yield detr


def finish(preloaded: Preloaded, words: list[str], errors: Path) -> None:
    process = preloaded.start(words, errors)
    assert process.wait() == 0, errors.read_text()


def wait_for_step(out: Path, step: int, process: Started, terminal: int | None = None) -> bytes:
    """Until the log has so many steps and there is a file to resume from; returns what the terminal shows."""
    log, said = out / "log.jsonl", b""
    while not (log.exists() and any(entry.get("step", 0) >= step for entry in read_log(log))):
        said += shown(terminal)
        assert psutil.pid_exists(process.pid), f"the run ended before step {step}: {said!r}"
    return said


def figures(out: Path) -> list[dict[str, Any]]:
    """What a run logged of its steps and validations, but for the time they took."""
    entries = [entry for entry in read_log(out / "log.jsonl") if "config" not in entry]
    assert [entry["step"] for entry in entries if "loss" in entry] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in entries if "AP" in entry] == [3, 6, 8]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def uninterrupted(preloaded: Preloaded, tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(preloaded, command(tiny_shapes, out), out / "errors")
    return out


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_goes_on_as_if_it_had_not_been(
    preloaded: Preloaded, uninterrupted: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    step = random.randint(2, STEPS - 2)  # a different one each time: the message below says which
    process = preloaded.start(command(tiny_shapes, tmp_path), tmp_path / "errors")
    wait_for_step(tmp_path, step, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finish(preloaded, resuming(tmp_path), tmp_path / "errors")
    assert figures(tmp_path) == figures(uninterrupted), f"killed at step {step}"
    one, other = (read_checkpoint(out / "model.safetensors").state_dict for out in (tmp_path, uninterrupted))
    assert all(torch.equal(one[key], other[key]) for key in other), f"killed at step {step}"


def stopped(start: Start, words: list[str], out: Path, number: int, whom: str) -> tuple[int, str]:
    """Exit code and last words of a run that is sent a signal after its third step: to the process, to its group or, as
    control-C is, by its terminal.
    """
    if whom == "the terminal":
        return stopped_by_terminal(start, words, out, number)
    process = start(words, out / "errors", None)
    wait_for_step(out, 3, process)
    os.killpg(process.pid, number) if whom == "the group" else os.kill(process.pid, number)
    return process.wait(), (out / "errors").read_text()


def stopped_by_terminal(start: Start, words: list[str], out: Path, number: int) -> tuple[int, str]:
    """The same in a terminal of its own; a signal that no key sends goes to all who are there."""
    terminal, other_end = pty.openpty()
    process = start(words, out / "errors", os.ttyname(other_end))
    said = wait_for_step(out, 3, process, terminal)
    os.close(other_end)
    if number == signal.SIGINT:
        os.write(terminal, b"\x03")
    else:
        os.killpg(process.pid, number)
    with ThreadPoolExecutor(1) as pool:
        code = pool.submit(process.wait)
        while not code.done():
            said += shown(terminal)
    said += shown(terminal)
    os.close(terminal)
    return code.result(), said.decode()


def shown(terminal: int | None) -> bytes:
    """What a terminal shows in a moment."""
    ready = select.select([] if terminal is None else [terminal], [], [], 0.03)[0]
    try:
        return b"".join(os.read(each, 65536) for each in ready)
    except OSError:  # nobody writes to it any more
        return b""


def check_nothing_is_lost(
    start: Start,
    number: int,
    whom: str,
    workers: int,
    preloaded: Preloaded,
    uninterrupted: Path,
    root: Path,
    out: Path,
) -> None:
    words = command(root, out, "--save-every", "1000", "--workers", str(workers))
    code, said = stopped(start, words, out, number, whom)
    assert code == 128 + number, said
    how = f": go on with it by detr train --resume {out}"
    assert how in said if whom == "the terminal" else said.splitlines()[-1].endswith(how)
    assert "Traceback" not in said
    finish(preloaded, resuming(out), out / "errors")
    assert figures(out) == figures(uninterrupted)
    one, other = (read_checkpoint(each / "model.safetensors").state_dict for each in (out, uninterrupted))
    assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "whom", "workers"),
    [
        (signal.SIGTERM, "the process", 1),
        (signal.SIGTERM, "the group", 2),
        (signal.SIGINT, "the group", 4),
        (signal.SIGINT, "the terminal", 2),
    ],
)
def test_a_run_that_is_asked_to_stop_says_how_to_go_on_and_loses_nothing(
    number: int, whom: str, workers: int, preloaded: Preloaded, uninterrupted: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    check_nothing_is_lost(started, number, whom, workers, preloaded, uninterrupted, tiny_shapes, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("workers", range(5))
@pytest.mark.parametrize("whom", ["the process", "the group", "the terminal"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_so_it_is_every_time(
    number: int,
    whom: str,
    workers: int,
    turn: int,
    uninterrupted: Path,
    tiny_shapes: Path,
    tmp_path: Path,
    preloaded: Preloaded,
) -> None:
    check_nothing_is_lost(preloaded.start, number, whom, workers, preloaded, uninterrupted, tiny_shapes, tmp_path)
