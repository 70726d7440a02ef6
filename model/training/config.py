"""How weights are learnt: every setting of a run, and the recipes that are known to work."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

TrainingStage = Literal["detection", "masks", "joint"]
Schedule = Literal["drop", "decay"]
TrainingPrecision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run. The defaults are the published ones (paper, appendix A.4) for 300 epochs.

    A run lasts `epochs` passes over the data, or `steps` optimizer steps. `batch_size` is what one optimizer step sees
    in all processes together; `accumulate` computes each process's share in so many parts, with the same gradients and
    less memory. The learning rate rises linearly over `warmup_steps`, stays, and from the fraction `lr_turn` of the run
    on is a tenth of itself (`drop`, as published) or falls linearly to zero (`decay`). `clip` bounds the gradient's
    norm. `ema` is the decay of a moving average of the weights, which is then what is evaluated and saved; 0 for none.
    `evaluate_every` counts epochs, and 0 means never; `log_every` and `save_every` (a file to resume from) count steps.
    """

    stage: TrainingStage = "detection"
    epochs: float | None = 300
    steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 1e-4
    lr_backbone: float = 1e-5
    weight_decay: float = 1e-4
    warmup_steps: int = 0
    lr_schedule: Schedule = "drop"
    lr_turn: float = 2 / 3
    clip: float = 0.1
    ema: float = 0.0
    precision: TrainingPrecision = "32-true"
    multi_scale: bool = True
    crop: bool = True
    freeze: tuple[str, ...] = ()
    activation_checkpointing: bool = False
    evaluate_every: float = 1.0
    log_every: int = 20
    save_every: int = 1000
    workers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a run has a number of --epochs or of --steps, one of the two")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"--steps must be at least 1, not {self.steps}")
        if self.epochs is not None and not 0 < self.epochs < math.inf:
            raise ValueError(f"--epochs must be more than 0, not {self.epochs}")
        for name in ("batch_size", "accumulate", "log_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{_option(name)} must be at least 1, not {getattr(self, name)}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"--batch-size {self.batch_size} cannot be divided into --accumulate {self.accumulate} parts"
            )
        # The optimizer does not check the rates of its groups.
        for name in ("lr", "lr_backbone", "weight_decay", "clip", "warmup_steps", "evaluate_every", "workers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{_option(name)} must be 0 or more, not {getattr(self, name)}")
        if not 0 <= self.lr_turn <= 1:
            raise ValueError(f"--lr-turn must be a fraction of the run, from 0 to 1, not {self.lr_turn}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema must be at least 0 and less than 1, not {self.ema}")

    def total_steps(self, batches: int) -> int:
        """Optimizer steps of the whole run, where an epoch has so many batches."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * batches))

    def lr_factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by at a step, from 0, of so many."""
        rising = (step + 1) / max(1, self.warmup_steps)
        turn = self.lr_turn * steps
        dropped = 1.0 if step < turn else 0.1
        decayed = (steps - step) / max(1.0, steps - turn)
        return max(0.0, min(1.0, rising, dropped if self.lr_schedule == "drop" else decayed))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class Recipe:
    """Settings, and where a run starts: the network and its backbone's weights, unless `--init` gives both."""

    config: TrainConfig
    summary: str
    preset: str = "detr-resnet-50"
    backbone_weights: str | None = "imagenet"


# The reference trains a ResNet from its second stage on (models/backbone.py).
_PUBLISHED = TrainConfig(freeze=("stem",))
_DEMO = TrainConfig(
    epochs=None,
    steps=12_000,
    batch_size=16,
    lr=3e-4,
    lr_backbone=3e-4,
    warmup_steps=500,
    lr_schedule="decay",
    lr_turn=0.6,
    multi_scale=False,
    crop=False,
    workers=1,
)

RECIPES: dict[str, Recipe] = {
    "detr-300": Recipe(_PUBLISHED, "300 epochs from ImageNet weights, rate dropped after 200, as in the paper"),
    "detr-500": Recipe(replace(_PUBLISHED, epochs=500, lr_turn=0.8), "500 epochs, rate dropped after 400"),
    "detr-masks": Recipe(
        replace(_PUBLISHED, stage="masks", epochs=25, lr_turn=0.6, batch_size=16, crop=False),
        "mask head over a frozen detector, 25 epochs, rate dropped after 15, as published",
    ),
    "detr-joint": Recipe(replace(_PUBLISHED, stage="joint"), "detector and mask head together, 300 epochs"),
    "fine-tune": Recipe(
        replace(_PUBLISHED, epochs=100, batch_size=16, lr_turn=0.8, ema=0.999, crop=False),
        "a trained detector to other classes: 100 epochs, a moving average of the weights",
    ),
    "demo": Recipe(_DEMO, "the demo model from scratch on `detr shapes`", "detr-demo", None),
    "demo-masks": Recipe(
        replace(_DEMO, stage="masks", steps=2_000), "the demo model's mask head over its detector", "detr-demo", None
    ),
}


def default_recipe(data: str, stage: TrainingStage | None, has_init: bool) -> str:
    """The recipe of a run that names none."""
    if data == "shapes":
        return "demo-masks" if stage == "masks" else "demo"
    if stage in ("masks", "joint"):
        return f"detr-{stage}"
    return "fine-tune" if has_init else "detr-300"
