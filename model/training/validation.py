"""Validation during a run: figures as `detr evaluate` counts them, and the best weights so far by one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning

from model.data.evaluation_set import EvaluationBatch
from model.evaluation.average_precision import NOTHING
from model.evaluation.evaluator import OF_MASKS, Evaluator
from model.runtime.engines.raw_outputs import RawOutputs
from model.training.moving_average import RAW

_OF_SHAPES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
KEPT = (*_OF_SHAPES, *(f"{name}{OF_MASKS}" for name in _OF_SHAPES), "PQ", "SQ", "RQ", "PQ_th", "PQ_st")
BEST = "best"  # the figure that decides, of the best weights so far
RAW_SUFFIX = "_raw"  # of figures of the weights themselves, where a moving average is judged as well
_Save = Callable[[dict[str, float]], object]

# Figures that the best weights are chosen by.
MEASURES = {"AP": "AP of boxes", "AP_mask": "AP of masks", "PQ": "panoptic quality (PQ)"}


class Validation(lightning.Callback):
    """Counts every validation picture, logs the figures, and hands weights that are the best so far to `save_best`.

    The best are those with the highest `evaluator.measure`. Where that is undefined, nothing is the best.

    With a moving average the pictures come twice, from two loaders: the average answers first, then the weights
    themselves; the better of both may be the best. Must come before the callback that averages weights, which changes
    those of the module between the two and at the end.
    """

    def __init__(self, evaluator: Evaluator, save_best: _Save) -> None:
        """Judge with an evaluator of the validation pictures; every process calls `save_best` with the figures."""
        self.evaluator = evaluator
        self.save_best = save_best
        self.best = NOTHING
        # Those that are defined: of the average, or of the weights where there is none, and of the weights beside it.
        self.figures: dict[str, float] = {}
        self.raw_figures: dict[str, float] = {}
        self.step = -1  # of the figures
        self._loader = 0
        self._logged: dict[str, float] = {}

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start counting."""
        self.evaluator.reset()
        self.raw_figures, self._logged = {}, {}
        self._loader = 0

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Between the average and the weights, judge the average while the module has it."""
        if dataloader_idx != self._loader:
            self._judge(trainer)
            self.evaluator.reset()
            self._loader = dataloader_idx

    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: RawOutputs,
        batch: EvaluationBatch,
        *_: Any,
    ) -> None:
        """Count a batch."""
        self.evaluator.update(batch.indices, batch.batch.sizes, outputs)

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the figures of all processes, those that are undefined as NaN."""
        self._judge(trainer)
        self.step = trainer.global_step
        best = {BEST: self.best} if self.best > NOTHING else {}
        pl_module.log_dict({**self._logged, **best}, rank_zero_only=True)

    def _judge(self, trainer: lightning.Trainer) -> None:
        """Count up what was seen with one set of weights, and save these where no others were better."""
        self.evaluator.gather()
        found = self.evaluator.figures()
        kept = {name: float(found[name]) for name in KEPT if name in found}
        figures = {name: value for name, value in kept.items() if value > NOTHING}
        suffix = RAW_SUFFIX if self._loader == RAW else ""
        self._logged |= {f"{name}{suffix}": figures.get(name, math.nan) for name in kept}
        if self._loader == RAW:
            self.raw_figures = figures
        else:
            self.figures = figures
        judged = figures.get(self.evaluator.measure, NOTHING)
        if judged > self.best and not trainer.sanity_checking:
            self.best = judged
            self.save_best(figures)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed must know."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best = state_dict["best"]


def validation_notes(evaluator: Evaluator | None) -> list[str]:
    """What the best weights will be chosen by, and which figures of the validation will be undefined."""
    if evaluator is None:
        return []
    measure = MEASURES[evaluator.measure]
    notes = list(evaluator.notes())
    best = f"best.safetensors will hold the weights with the highest {measure} in validation"
    if not evaluator.has_objects:
        best = f"there will be no best.safetensors, as it is chosen by {measure}"
    return [*(f"validation: {note}" for note in notes), best]
