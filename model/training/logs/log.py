"""The figures of a run, one JSON object a line, in a file that a person or a script can follow while it grows.

The first line holds the settings, `{"config": {...}}`; a run that is resumed with other settings writes another such
line. Every other line has `step` (optimizer steps done), `epoch` (from 0), `seconds` (since the run began, without the
time between an interruption and going on) and the figures of that moment. What is not finite is null.
"""

from __future__ import annotations

import json
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger

_Figures = Mapping[str, Any]  # names to numbers, or to tensors of one number


class RunLog(Logger):
    """Lightning's figures as JSON lines; only process 0 writes.

    A file of an older run is kept, as `NAME-1.jsonl`, `NAME-2.jsonl` and so on.
    """

    name = ""  # where Lightning would put other loggers' folders
    version = ""

    def __init__(self, path: Path, steps_done: Callable[[], int], *, resumed_step: int | None = None) -> None:
        """Log to a file, which is not touched before the first line.

        Args:
            path: the file.
            steps_done: tells the step of a line, as a module's `global_step` does. Lightning's own number is that of
                the present batch, from 0, but one more where validation follows training.
            resumed_step: steps done by the run that this one goes on with: its lines up to there stay, later ones go,
                and so does one that was cut short. None begins a new file.
        """
        super().__init__()
        self.path = path
        self._steps_done = steps_done
        self._resumed_step = resumed_step
        self._began = False
        self._start = time.monotonic()
        self._config: dict[str, Any] | None = None

    @property
    def save_dir(self) -> str:
        """The folder of the file."""
        return str(self.path.parent)

    @rank_zero_only
    def log_hyperparams(self, params: Mapping[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Write the settings, unless the file has them already. What JSON does not know is written as text."""
        settings = dict(params) if isinstance(params, Mapping) else vars(params)
        config: dict[str, Any] = json.loads(json.dumps(settings, default=str))
        self._begin()
        if config != self._config:
            self._write({"config": config})
            self._config = config

    @rank_zero_only
    def log_metrics(self, metrics: _Figures, step: int | None = None) -> None:
        """Write a line; `step` is Lightning's, and not used."""
        self._begin()
        epoch = {"epoch": int(metrics["epoch"])} if "epoch" in metrics else {}
        seconds = round(time.monotonic() - self._start, 3)
        numbers = {name: _finite(value) for name, value in metrics.items() if name != "epoch"}
        self._write({"step": self._steps_done(), **epoch, "seconds": seconds, **numbers})

    def _begin(self) -> None:
        """Rename an older file, or go on where the resumed run was. Not before the first line: ranks are known then."""
        if self._began:
            return
        self._began = True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists() and self._resumed_step is None:
            older = (self.path.with_stem(f"{self.path.stem}-{number}") for number in count(1))
            self.path.rename(next(path for path in older if not path.exists()))
        elif self.path.exists():
            self._go_on(self._resumed_step or 0)

    def _go_on(self, step: int) -> None:
        """Cut the file after its last line up to a step, and continue the clock from the seconds of that line."""
        end, seconds = 0, 0.0
        for line in _whole_lines(self.path):
            at = line.entry.get("step", 0)
            # A validation comes after the file to resume from is written, and comes again.
            if at > step or (at == step > 0 and "loss" not in line.entry):
                break
            end, seconds = line.end, line.entry.get("seconds", seconds)
            self._config = line.entry.get("config", self._config)
        with self.path.open("r+b") as file:
            file.truncate(end)
        self._start -= seconds

    def _write(self, entry: dict[str, Any]) -> None:
        # Opened for every line: nothing to close after an interruption, and a reader of the file sees it at once.
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, settings included; one that was cut short, and what follows it, is left out.

    Raises FileNotFoundError where there is none.
    """
    return [line.entry for line in _whole_lines(path)]


class _Line(NamedTuple):
    entry: dict[str, Any]
    end: int  # bytes from the beginning of the file


def _whole_lines(path: Path) -> Iterator[_Line]:
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n") or not isinstance(entry, dict):
                return
            yield _Line(entry, end)


def _finite(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
