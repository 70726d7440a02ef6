"""How far a run is, for a person: one bar over all its steps, or a line now and then where there is no terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import lightning
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

LOSSES = {
    "loss": "loss",
    "loss_ce": "ce",
    "loss_bbox": "bbox",
    "loss_giou": "giou",
    "loss_mask": "mask",
    "loss_dice": "dice",
}
_QUALITY = ("AP", "AP_mask", "PQ")
_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
_SLACK = 4  # columns that the times may grow by until the figures are renewed


class RunProgress(ProgressBar):
    """Steps done of all steps, the losses, AP and PQ of the last validation (NaN is a dash), and the time left.

    Figures are those that the module logs under the names in `LOSSES` and `_QUALITY`; where the terminal is too narrow
    for all of them, the last ones are left out, whole. A run that is resumed begins where it was; validation is part of
    the run's pace, so the time left includes it.
    """

    def __init__(
        self,
        *,
        every_steps: int = 20,
        every_seconds: float = 60.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show progress on a stream, by default stderr.

        Args:
            every_steps: how often the figures of the bar are renewed.
            every_seconds: how often a line is printed where the stream is no terminal.
            stream: where to.
            clock: what tells the seconds of the lines.
        """
        super().__init__()
        self._every_steps = every_steps
        self._every_seconds = every_seconds
        self._stream = stream
        self._clock = clock
        self._enabled = True
        self._bar: Tqdm | None = None
        self._first_step = self._shown_step = self._total = 0
        self._began = self._last_line = 0.0
        self._quality: dict[str, float] = {}
        self._shown: list[str] = []  # figures, the most important first

    def disable(self) -> None:
        """Show nothing; Lightning asks for it in every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar."""
        if self._bar is not None:
            self._bar.write(sep.join(map(str, args)), file=self._out)
        elif self._enabled:
            print(*args, sep=sep, **{"file": self._out, **kwargs})

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin at the step that a resumed run is at."""
        self._first_step = self._shown_step = trainer.global_step
        self._total = trainer.max_steps
        self._began = self._last_line = self._clock()
        if self._enabled and self._out.isatty():
            self._bar = Tqdm(
                desc="training",
                total=trainer.max_steps,
                initial=trainer.global_step,
                unit="step",
                smoothing=0,  # the mean pace, or the time left would jump with every validation
                dynamic_ncols=True,
                bar_format=_FORMAT,
                file=self._out,
            )

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Count the step; figures are read now and then only, because that waits for the device."""
        step = trainer.global_step
        if self._bar is not None:
            if step % self._every_steps == 0 or step in (self._first_step + 1, self._total):
                self._shown = self._figures(trainer)
                self._fit(self._bar)
            self._bar.update(step - self._bar.n)
        elif self._shown_step == self._first_step or self._clock() - self._last_line >= self._every_seconds:
            self._print_line(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Say what is taking long now."""
        if self._bar is not None:
            self._describe(self._bar, "validating")

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Say how much of the validation is done."""
        if self._bar is not None:
            batches = [round(count) for count in trainer.num_val_batches]
            done = sum(batches[:dataloader_idx]) + batch_idx + 1
            self._describe(self._bar, f"validating {done}/{sum(batches)}")

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Keep what was measured until the next time."""
        if trainer.sanity_checking:
            return
        found = trainer.callback_metrics
        self._quality = {name: float(found[name]) for name in _QUALITY if name in found}
        if self._bar is not None:
            self._shown = self._figures(trainer)
            self._describe(self._bar, "training")
        else:
            self._print_line(trainer)

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Leave the last state to be read."""
        if self._bar is None and self._shown_step != trainer.global_step:
            self._print_line(trainer)
        self._close()

    def on_exception(self, *_: Any) -> None:
        """Leave the terminal in order for what is printed about it."""
        self._close()

    @property
    def _out(self) -> TextIO:
        return sys.stderr if self._stream is None else self._stream

    def _figures(self, trainer: lightning.Trainer) -> list[str]:
        found = trainer.callback_metrics
        quality = [f"{name} –" if math.isnan(value) else f"{name} {value:.3f}" for name, value in self._quality.items()]
        return [*quality, *(f"{short} {float(found[name]):.3g}" for name, short in LOSSES.items() if name in found)]

    def _describe(self, bar: Tqdm, what: str) -> None:
        bar.set_description_str(what, refresh=False)
        self._fit(bar)
        bar.refresh()

    def _fit(self, bar: Tqdm) -> None:
        """Show as many figures as there is room for beside the shortest bar."""
        state = bar.format_dict
        bare = len(bar.format_meter(**{**state, "postfix": "", "ncols": None})) - 9  # of the ten columns of its bar
        room = (state["ncols"] or math.inf) - bare - len(", ") - _SLACK
        count = len(self._shown)
        while count and len("  ".join(self._shown[:count])) > room:
            count -= 1
        bar.set_postfix_str("  ".join(self._shown[:count]), refresh=False)

    def _print_line(self, trainer: lightning.Trainer) -> None:
        step, now = trainer.global_step, self._clock()
        self._shown_step, self._last_line = step, now
        if not self._enabled:
            return
        parts = [f"step {step}/{self._total}", *self._figures(trainer)]
        if step > self._first_step:
            pace = (now - self._began) / (step - self._first_step)  # seconds a step
            parts += [f"{pace:.3g} s/step", f"{Tqdm.format_interval(pace * (self._total - step))} left"]
        print("  ".join(part for part in parts if part), file=self._out, flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
