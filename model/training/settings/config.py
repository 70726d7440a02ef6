"""How weights are learnt: every setting of a run."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from model.data.transforms import PUBLISHED, Augmentation

TrainingStage = Literal["detection", "masks", "joint"]
Schedule = Literal["drop", "step", "decay", "cosine"]
TrainingPrecision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
FreezablePart = Literal["stem", "backbone", "encoder", "decoder", "queries", "heads", "mask_head"]

VALIDATIONS = 30  # in a run that does not say every how many epochs

# The text in an annotation is what the value is called in the help of the command line.
_Count = Annotated[int, Field(ge=1), "COUNT"]
_CountOrNone = Annotated[int, Field(ge=0), "COUNT"]
_Steps = Annotated[int, Field(ge=1), "STEPS"]
_Factor = Annotated[float, Field(ge=0), "FACTOR"]
_Rate = Annotated[float, Field(ge=0), "RATE"]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True))
class TrainConfig:
    """The settings of a run. The defaults are the published ones (paper, appendix A.4) for 300 epochs.

    A run lasts `epochs` or `steps`, one of the two. The text under a field is what `detr train --help` says of it: each
    setting is an option of its name. Raises ValidationError, which is a ValueError, for values that make no run.
    """

    stage: TrainingStage = "detection"
    """Train the detector (detection), the mask head over the frozen detector of --init (masks), or both at once
    (joint).
    """
    epochs: Annotated[float | None, Field(gt=0), "COUNT"] = 300
    """Train for this many passes over the data; a part of one counts too."""
    steps: Annotated[int | None, Field(ge=1), "COUNT"] = None
    """Train for this many optimizer steps, instead of --epochs."""
    batch_size: _Count = 64
    """Learn from this many pictures in each optimizer step, in all processes together."""
    accumulate: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], "COUNT|auto"] = "auto"
    """Compute each batch in this many parts, which gives the same gradients and takes less memory; it has to divide the
    batch size. With auto there are as few as fit into the memory that is free.
    """
    lr: _Rate = 1e-4
    """Set the learning rate of all but the backbone."""
    lr_backbone: _Rate = 1e-5
    """Set the learning rate of the backbone."""
    weight_decay: _Factor = 1e-4
    """Set AdamW's weight decay."""
    warmup_steps: _CountOrNone = 0
    """Let the learning rates rise linearly over this many optimizer steps at the start."""
    lr_schedule: Schedule = "drop"
    """Drop the learning rates to a tenth at --lr-turn (drop), drop them to a tenth of what they are at each of
    --lr-drops (step), let them fall linearly to zero from --lr-turn on (decay), or along a cosine to zero from the end
    of the warm-up on (cosine).
    """
    lr_turn: Annotated[float, Field(ge=0, le=1), "FRACTION"] = 2 / 3
    """Drop the learning rates, or begin to decay them, after this fraction of the run, from 0 to 1."""
    lr_drops: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], "FRACTION"] = (0.6, 0.9)
    """Drop the learning rates of the schedule step after each of these fractions of the run, from 0 to 1."""
    class_loss_weight: _Factor = 1.0
    """Multiply the loss of the classes, a cross-entropy, by this."""
    l1_loss_weight: _Factor = 5.0
    """Multiply the L1 loss of the boxes by this."""
    giou_loss_weight: _Factor = 2.0
    """Multiply the generalised IoU loss of the boxes by this."""
    mask_loss_weight: _Factor = 1.0
    """Multiply the focal loss of the masks by this."""
    dice_loss_weight: _Factor = 1.0
    """Multiply the dice loss of the masks by this."""
    no_object_weight: _Factor = 0.1
    """Weigh no-object, which most queries are to predict, by this among the classes."""
    class_weights: Annotated[tuple[str, ...], "balanced|NAME=WEIGHT"] = ()
    """Weigh objects of these classes by these factors in the loss of the classes, or all classes by how seldom they are
    (balanced): the rarer, the more, and 1 in the mean of all objects. A class that is not named has 1.
    """
    repeat_threshold: Annotated[float, Field(ge=0, le=1), "FRACTION"] = 0.0
    """Show pictures with a class that is in less than this fraction of them several times an epoch, as many as the
    square root of how much less, as for LVIS, where it is 0.001; 0 shows each picture once.
    """
    cost_class: _Factor = 1.0
    """Weigh the probability of the class by this where queries are matched to objects."""
    cost_box: _Factor = 5.0
    """Weigh the L1 distance of the boxes by this where queries are matched to objects."""
    cost_giou: _Factor = 2.0
    """Weigh the generalised IoU of the boxes by this where queries are matched to objects."""
    clip: Annotated[float, Field(ge=0), "NORM"] = 0.1
    """Scale gradients down to this norm; 0 leaves them as they are."""
    ema: Annotated[float, Field(ge=0, lt=1), "FRACTION"] = 0.0
    """Validate and save a moving average of the weights, which keeps this share of itself in each step; 0 takes the
    weights themselves.
    """
    precision: TrainingPrecision = "32-true"
    """Compute the network in this precision; matching and losses are computed in float32 in any case. auto takes
    bf16-mixed where the GPU or CPU has instructions for it, and 32-true elsewhere.
    """
    augment: Annotated[tuple[Augmentation, ...], "NAME"] = PUBLISHED
    """Change pictures at random by these and nothing else: flip and vertical-flip mirror half of them, multi-scale
    resizes them to 0.6 to 1 times the network's size, crop cuts a rectangle out of half of them, rotation turns them by
    up to 15 degrees, colour distorts brightness, contrast, saturation and hue, and large-scale-jitter shows a part of
    them at 0.1 to 2 times the size.
    """
    freeze: Annotated[tuple[FreezablePart, ...], "PART"] = ()
    """Leave these parts of the network exactly as they are."""
    activation_checkpointing: bool = False
    """Compute activations a second time in the backward pass, which takes less memory and more time."""
    evaluate_every: Annotated[float | None, Field(ge=0), "EPOCHS"] = 1.0
    """Validate after every so many epochs; a part of one counts too, and 0 never validates. Recipes for data of any
    size validate thirty times in a run instead.
    """
    patience: _CountOrNone = 0
    """End the run early when so many validations in a row were no better than the best before them; 0 never does."""
    log_every: _Steps = 20
    """Write a line of the log after every so many optimizer steps."""
    save_every: _Steps = 1000
    """Write the file to resume from after every so many optimizer steps."""
    workers: _CountOrNone = 2
    """Load pictures in this many processes beside each one that trains; 0 loads them in that process itself."""
    seed: Annotated[int, "NUMBER"] = 0
    """Draw fresh weights, the order of the pictures and their augmentation from this seed."""

    @model_validator(mode="after")
    def _makes_a_run(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("a run has a number of --epochs or of --steps, one of the two")
        if self.batch_size % self.parts:
            raise ValueError(
                f"--batch-size {self.batch_size} cannot be divided into --accumulate {self.accumulate} parts"
            )
        if not (self.cost_class or self.cost_box or self.cost_giou):
            raise ValueError("--cost-class, --cost-box and --cost-giou are all 0: nothing would decide what is matched")
        return self

    @property
    def loss_weights(self) -> dict[str, float]:
        """What each loss is multiplied by, by the criterion's names."""
        return {
            "loss_ce": self.class_loss_weight,
            "loss_bbox": self.l1_loss_weight,
            "loss_giou": self.giou_loss_weight,
            "loss_mask": self.mask_loss_weight,
            "loss_dice": self.dice_loss_weight,
        }

    @property
    def parts(self) -> int:
        """In how many parts a batch is computed; 1 as long as that is to be chosen."""
        return 1 if self.accumulate == "auto" else self.accumulate

    def total_steps(self, batches: int) -> int:
        """Optimizer steps of the whole run, where an epoch has so many batches."""
        return self.steps if self.steps is not None else max(1, round((self.epochs or 0) * batches))

    def evaluation_steps(self, batches: int) -> int:
        """Optimizer steps from a validation to the next, where an epoch has so many batches; 0 never validates."""
        if self.evaluate_every is None:
            return max(1, self.total_steps(batches) // VALIDATIONS)
        return max(1, round(self.evaluate_every * batches)) if self.evaluate_every else 0

    def lr_factor(self, step: int, steps: int) -> float:
        """What the learning rates are multiplied by at a step, from 0, of so many."""
        return max(0.0, min(1.0, (step + 1) / max(1, self.warmup_steps), self._falling(step, steps)))

    def _falling(self, step: int, steps: int) -> float:
        """The schedule after the warm-up: from 1 downwards."""
        turn = self.lr_turn * steps
        match self.lr_schedule:
            case "drop":
                return 1.0 if step < turn else 0.1
            case "step":
                return float(0.1 ** sum(step >= drop * steps for drop in self.lr_drops))
            case "decay":
                return (steps - step) / max(1.0, steps - turn)
            case "cosine":
                done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
                return (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2

    def last_turn(self, steps: int) -> float | None:
        """The step at which the rates fall for the last time, or begin to; None where they fall all the time."""
        if self.lr_schedule == "cosine":
            return None
        return steps * (max(self.lr_drops, default=1.0) if self.lr_schedule == "step" else self.lr_turn)
