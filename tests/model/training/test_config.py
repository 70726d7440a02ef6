"""Settings of a run: what is refused, how long it is, and how fast it learns when."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.network.config import PRESETS
from model.training.config import RECIPES, TrainConfig, default_recipe
from model.training.options import add_arguments, read_recipe

DECAY = TrainConfig(warmup_steps=100, lr_schedule="decay", lr_turn=0.6)
STEPS = 1000


@pytest.mark.parametrize(
    ("step", "factor"),
    [(0, 0.01), (49, 0.5), (99, 1.0), (100, 1.0), (600, 1.0), (700, 0.75), (800, 0.5), (999, 0.0025), (1000, 0.0)],
)
def test_a_rate_that_decays_rises_stays_and_falls_to_zero(step: int, factor: float) -> None:
    assert DECAY.lr_factor(step, STEPS) == pytest.approx(factor)


@pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (199, 1.0), (200, 0.1), (299, 0.1)])
def test_the_published_rate_drops_to_a_tenth_after_two_thirds(step: int, factor: float) -> None:
    assert RECIPES["detr-300"].config.lr_factor(step, 300) == pytest.approx(factor)


@given(
    warmup=st.integers(0, 2000),
    turn=st.floats(0, 1),
    steps=st.integers(1, 3000),
    schedule=st.sampled_from(["drop", "decay"]),
)
def test_a_rate_never_passes_its_peak_nor_falls_below_zero(warmup: int, turn: float, steps: int, schedule: Any) -> None:
    config = TrainConfig(warmup_steps=warmup, lr_schedule=schedule, lr_turn=turn)
    factors = [config.lr_factor(step, steps) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    rises = [b > a for a, b in pairwise(factors)]
    assert rises == sorted(rises, reverse=True), "once a rate has stopped to rise it rises no more"


def test_a_run_is_as_long_as_its_epochs_or_its_steps() -> None:
    assert TrainConfig(epochs=2.5).total_steps(batches=10) == 25
    assert TrainConfig(epochs=0.01).total_steps(batches=10) == 1
    assert TrainConfig(epochs=None, steps=7).total_steps(batches=10) == 7


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"steps": 5}, "one of the two"),
        ({"epochs": None}, "one of the two"),
        ({"epochs": None, "steps": 0}, "--steps must be at least 1, not 0"),
        ({"epochs": 0}, "--epochs must be more than 0, not 0"),
        ({"epochs": math.nan}, "--epochs must be more than 0, not nan"),
        ({"batch_size": 0}, "--batch-size must be at least 1, not 0"),
        ({"accumulate": 0}, "--accumulate must be at least 1, not 0"),
        ({"lr": -1.0}, "--lr must be 0 or more, not -1.0"),
        ({"lr_backbone": math.nan}, "--lr-backbone must be 0 or more, not nan"),
        ({"weight_decay": math.inf}, "--weight-decay must be 0 or more, not inf"),
        ({"lr_turn": 1.5}, "--lr-turn must be a fraction of the run, from 0 to 1, not 1.5"),
        ({"ema": 1.0}, "--ema must be at least 0 and less than 1, not 1.0"),
    ],
)
def test_settings_that_make_no_run_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TrainConfig(**settings)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_names_a_network_there_is(name: str) -> None:
    assert RECIPES[name].preset in PRESETS


@pytest.mark.parametrize(
    ("data", "stage", "has_init", "name"),
    [
        ("shapes", None, False, "demo"),
        ("shapes", "masks", True, "demo-masks"),
        ("coco", None, False, "detr-300"),
        ("coco", None, True, "fine-tune"),
        ("coco-panoptic", "masks", True, "detr-masks"),
        ("coco-panoptic", "joint", False, "detr-joint"),
    ],
)
def test_a_run_that_names_no_recipe_gets_one_that_suits_it(data: str, stage: Any, has_init: bool, name: str) -> None:
    assert default_recipe(data, stage, has_init) == name


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["--data", "coco", "--root", "mine", "--out", "out", *words])


def test_an_option_replaces_the_recipes_setting_and_leaves_the_others() -> None:
    published = RECIPES["detr-500"].config
    name, recipe = read_recipe(options("--recipe", "detr-500", "--lr", "0.5", "--no-crop", "--freeze", "backbone"))
    assert name == "detr-500"
    assert recipe.config == replace(published, lr=0.5, crop=False, freeze=("backbone",))


def test_a_length_replaces_the_recipes_however_it_is_given() -> None:
    _, recipe = read_recipe(options("--steps", "9"))
    assert (recipe.config.epochs, recipe.config.steps) == (None, 9)
    _, recipe = read_recipe(options("--recipe", "demo", "--epochs", "2"))
    assert (recipe.config.epochs, recipe.config.steps) == (2, None)
    with pytest.raises(ValueError, match="one of the two"):
        read_recipe(options("--steps", "9", "--epochs", "1"))
