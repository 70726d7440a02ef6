"""A moving average of weights: how it begins, when the module has it, and how it is judged."""

from __future__ import annotations

from typing import Any, cast

import lightning
import pytest
import torch

from model.evaluation.evaluator import Evaluator
from model.training.moving_average import AVERAGED, RAW, MovingAverage, ramped
from model.training.validation import Validation
from tests.model.training.tiny_run import Tiny, ones, tiny_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # Lightning with the latest torch
]


class Watched(Tiny):
    """Answers with its weight; the figure of a validation is that, and so differs between average and weights."""

    def validation_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> float:  # type: ignore[override]
        return float(self.weight.detach())

    def on_validation_epoch_end(self) -> None:
        pass


class FakeEvaluator:
    """Its AP is the answer to every picture of a validation."""

    measure = "AP"

    def __init__(self) -> None:
        self.answers: list[float] = []

    def reset(self) -> None:
        self.answers = []

    def update(self, indices: Any, sizes: Any, outputs: float) -> None:
        self.answers.append(outputs)

    def gather(self) -> None:
        pass

    def figures(self) -> dict[str, float]:
        assert len(set(self.answers)) == 1, "average and weights were mixed"
        return {"AP": self.answers[0]}


class Counting(Validation):
    """Takes batches of plain numbers."""

    def on_validation_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.evaluator.update([], [], outputs)


class Remember(lightning.Callback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.weights: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.weights.append(float(pl_module.weight.detach()))


def test_the_share_that_is_kept_rises_to_the_decay() -> None:
    average = ramped(0.9)
    for count, kept in ((1, 2 / 11), (9, 10 / 19), (71, 72 / 81), (81, 0.9), (1000, 0.9)):
        found = [torch.tensor([0.0]), torch.tensor([4.0])]
        average(found, [torch.tensor([1.0]), torch.tensor([2.0])], torch.tensor(count))
        assert torch.cat(found).tolist() == pytest.approx([1 - kept, 4 - 2 * (1 - kept)])


def test_what_a_layer_has_counted_is_not_averaged() -> None:
    counted = [torch.tensor(3)]
    ramped(0.9)(counted, [torch.tensor(7)], torch.tensor(1))
    assert counted == [torch.tensor(7)]


def test_the_average_and_the_weights_are_judged_and_the_better_of_both_is_kept() -> None:
    saved: list[tuple[float, float]] = []
    module, average, remembered = Watched(), MovingAverage(0.9), Remember()
    # Weights fall, so that the average, which follows them, has the larger figure.
    validation = Counting(
        cast(Evaluator, FakeEvaluator()), lambda figures: saved.append((figures["AP"], float(module.weight.detach())))
    )
    trainer = tiny_trainer(3, validation, average, remembered, val_check_interval=3)
    trainer.fit(module, ones(), [ones(), ones()])
    first, second, third = remembered.weights
    averaged = first + (second - first) * (1 - 2 / 11)
    averaged += (third - averaged) * (1 - 3 / 12)
    assert validation.figures["AP"] == pytest.approx(averaged)
    assert validation.raw_figures["AP"] == pytest.approx(third)
    assert saved == [pytest.approx((averaged, averaged))], "the weights that are saved are those with the figure"
    assert float(module.weight.detach()) == pytest.approx(averaged)
    average.use(module, RAW)
    assert float(module.weight.detach()) == pytest.approx(third)
    average.use(module, AVERAGED)
    assert float(module.weight.detach()) == pytest.approx(averaged)
