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

_OF_SHAPES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
KEPT = (*_OF_SHAPES, *(f"{name}{OF_MASKS}" for name in _OF_SHAPES), "PQ", "SQ", "RQ", "PQ_th", "PQ_st")
_Save = Callable[[dict[str, float]], object]


class Validation(lightning.Callback):
    """Counts every validation picture, logs the figures, and hands weights that are the best so far to `save_best`.

    The best are those with the highest `evaluator.measure`. Where that is undefined, nothing is the best.

    Must come before the callback that averages weights: at the end of a validation that one takes its average out of
    the module again.
    """

    def __init__(self, evaluator: Evaluator, save_best: _Save) -> None:
        """Judge with an evaluator of the validation pictures; every process calls `save_best` with the figures."""
        self.evaluator = evaluator
        self.save_best = save_best
        self.best = NOTHING
        self.figures: dict[str, float] = {}  # those that are defined
        self.step = -1  # of the figures

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start counting."""
        self.evaluator.reset()

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
        self.evaluator.gather()
        figures = self.evaluator.figures()
        kept = {name: float(figures[name]) for name in KEPT if name in figures}
        self.figures = {name: value for name, value in kept.items() if value > NOTHING}
        self.step = trainer.global_step
        pl_module.log_dict({name: self.figures.get(name, math.nan) for name in kept}, rank_zero_only=True)
        judged = self.figures.get(self.evaluator.measure, NOTHING)
        if judged > self.best and not trainer.sanity_checking:
            self.best = judged
            self.save_best(self.figures)

    def state_dict(self) -> dict[str, Any]:
        """What a run that is resumed must know."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best = state_dict["best"]
