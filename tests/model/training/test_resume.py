"""A run that is killed, wherever it is, and resumed takes the steps that it would have taken."""

from __future__ import annotations

import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from model.checkpoint.reading import read_checkpoint
from model.data.transforms import Augmentation
from model.training.log import read_log

STEPS = 8
SETTINGS = ("--steps", str(STEPS), "--batch-size", "2", "--log-every", "1", "--save-every", "1", "--warmup-steps", "4")
# Everything that has a state of its own: a moving average, augmentation, parts, workers, validation on the way.
RICH = (
    "--ema", "0.9", "--augment", *get_args(Augmentation), "--accumulate", "2",
    "--workers", "1", "--evaluate-every", "1",
)  # fmt: skip
TURNS = int(os.environ.get("TURNS", "1"))  # of the soak, of which each takes half an hour
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(root: Path, out: Path, *options: str) -> list[str]:
    words = ["train", "--data", "shapes", "--root", str(root), "--out", str(out), "--samples", "0", "--skip-check"]
    edges = ["--shortest-edge", "64", "--longest-edge", "96"]
    return [sys.executable, "-m", "service.cli", *words, *edges, *SETTINGS, *RICH, *options]


def resuming(run: Path) -> list[str]:
    return [sys.executable, "-m", "service.cli", "train", "--resume", str(run)]


@contextmanager
def running(words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A real process, which computes alike however many cores there are; none is left behind."""
    with subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def finish(words: list[str]) -> None:
    with running(words) as process:
        _, errors = process.communicate(timeout=250)
        assert process.returncode == 0, errors.decode()


def wait_for_step(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until the log has so many steps and there is a file to resume from."""
    while process.poll() is None:
        log = out / "log.jsonl"
        if log.exists() and any(entry.get("step", 0) >= step for entry in read_log(log)):
            return
        time.sleep(0.02)
    pytest.fail(f"the run ended before step {step}: {process.stderr.read().decode()!r}")  # type: ignore[union-attr]


def figures(out: Path) -> list[dict[str, Any]]:
    """What a run logged of its steps and validations, but for the time they took."""
    entries = [entry for entry in read_log(out / "log.jsonl") if "config" not in entry]
    assert [entry["step"] for entry in entries if "loss" in entry] == list(range(1, STEPS + 1))
    assert [entry["step"] for entry in entries if "AP" in entry] == [3, 6, 8]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


@pytest.fixture(scope="module")
def uninterrupted(tiny_shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("uninterrupted")
    finish(command(tiny_shapes, out))
    return out


@pytest.mark.slow
def test_a_run_killed_at_a_random_step_goes_on_as_if_it_had_not_been(
    uninterrupted: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    step = random.randint(2, STEPS - 2)  # a different one each time: the message below says which
    with running(command(tiny_shapes, tmp_path)) as process:
        wait_for_step(tmp_path, step, process)
        os.killpg(process.pid, signal.SIGKILL)
    finish(resuming(tmp_path))
    assert figures(tmp_path) == figures(uninterrupted), f"killed at step {step}"
    one, other = (read_checkpoint(out / "model.safetensors").state_dict for out in (tmp_path, uninterrupted))
    assert all(torch.equal(one[key], other[key]) for key in other), f"killed at step {step}"


def stopped(words: list[str], out: Path, number: int, whom: str) -> tuple[int, str]:
    """Exit code and last words of a run that is sent a signal after its third step: to the process, to its group or, as
    control-C is, by its terminal.
    """
    if whom == "the terminal":
        return stopped_by_terminal(words, out, number)
    with running(words) as process:
        wait_for_step(out, 3, process)
        os.killpg(process.pid, number) if whom == "the group" else process.send_signal(number)
        _, errors = process.communicate(timeout=240)
    return process.returncode, errors.decode()


def stopped_by_terminal(words: list[str], out: Path, number: int) -> tuple[int, str]:
    """The same in a terminal of its own; a signal that no key sends goes to all who are there."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(words[0], words, ENVIRONMENT)  # noqa: S606 - in the child, where subprocess cannot help
    log, said = out / "log.jsonl", b""
    while not (log.exists() and any(entry.get("step", 0) >= 3 for entry in read_log(log))):
        said += shown(terminal)
    if number == signal.SIGINT:
        os.write(terminal, b"\x03")
    else:
        os.killpg(process, number)
    while (ended := os.waitpid(process, os.WNOHANG))[0] == 0:
        said += shown(terminal)
    said += shown(terminal)
    os.close(terminal)
    return os.waitstatus_to_exitcode(ended[1]), said.decode()


def check_nothing_is_lost(number: int, whom: str, workers: int, uninterrupted: Path, root: Path, out: Path) -> None:
    words = command(root, out, "--save-every", "1000", "--workers", str(workers))
    code, said = stopped(words, out, number, whom)
    assert code == 128 + number, said
    how = f": go on with it by detr train --resume {out}"
    assert how in said if whom == "the terminal" else said.splitlines()[-1].endswith(how)
    assert "Traceback" not in said
    finish(resuming(out))
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
    number: int, whom: str, workers: int, uninterrupted: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    check_nothing_is_lost(number, whom, workers, uninterrupted, tiny_shapes, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("workers", range(5))
@pytest.mark.parametrize("whom", ["the process", "the group", "the terminal"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_so_it_is_every_time(
    number: int, whom: str, workers: int, turn: int, uninterrupted: Path, tiny_shapes: Path, tmp_path: Path
) -> None:
    check_nothing_is_lost(number, whom, workers, uninterrupted, tiny_shapes, tmp_path)


def shown(terminal: int) -> bytes:
    """What a terminal shows in a moment."""
    if not select.select([terminal], [], [], 0.05)[0]:
        return b""
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody writes to it any more
        return b""
