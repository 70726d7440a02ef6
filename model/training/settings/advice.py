"""What a person should know about a run before its first step, each with the option that helps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from model.training.settings.choosing import COCO_WEIGHTS, FEW_PICTURES, queries_for
from model.training.settings.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """A run as it is about to begin."""

    config: TrainConfig
    steps: int  # of the whole run
    pictures: int  # to learn from
    most_objects: int  # in one of them
    crowded: int  # pictures with more objects than queries
    queries: int
    large_from_scratch: bool  # a network that is not made for few pictures, and does not start from a checkpoint


def advice(plan: Plan) -> Iterator[str]:
    """Whole sentences about what will not do what it seems to."""
    config, steps = plan.config, plan.steps
    if config.warmup_steps >= steps:
        yield (
            f"The warm-up takes {config.warmup_steps} steps and the run has {steps}, so the learning rate never "
            f"reaches --lr {config.lr:g}: give --warmup-steps {steps // 10}, or a longer run."
        )
    if (turn := config.last_turn(steps)) is not None and turn > steps - 1:
        fractions = "--lr-drops" if config.lr_schedule == "step" else "--lr-turn"
        yield (
            f"The learning rate would fall at step {turn:.0f} and the run ends at step {steps}, so it never does: give "
            f"{fractions} smaller fractions of the run, or a longer run."
        )
    if plan.large_from_scratch and plan.pictures < FEW_PICTURES:
        yield (
            f"There are {plan.pictures:,} pictures, of which a network of this size learns little from scratch: start "
            f"from trained weights with --init {COCO_WEIGHTS}, or take --recipe small."
        )
    if plan.crowded:
        yield (
            f"In {plan.crowded:,} of {plan.pictures:,} pictures there are more objects (up to {plan.most_objects:,}) "
            f"than the network has queries ({plan.queries}), and it cannot find them all: give --num-queries "
            f"{queries_for(plan.most_objects, plan.queries)}."
        )
