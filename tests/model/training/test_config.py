"""Settings of a run: what is refused, how long it is, and how fast it learns when."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, fields, replace
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
    ("words", "reason"),
    [
        (("--steps", "5", "--epochs", "1"), "a run has a number of --epochs or of --steps, one of the two"),
        (("--steps", "0"), "--steps should be greater than or equal to 1, not 0"),
        (("--epochs", "0"), "--epochs should be greater than 0, not 0.0"),
        (("--epochs", "nan"), "--epochs should be a finite number, not nan"),
        (("--batch-size", "0"), "--batch-size should be greater than or equal to 1, not 0"),
        (("--batch-size", "3", "--accumulate", "2"), "--batch-size 3 cannot be divided into --accumulate 2 parts"),
        (("--accumulate", "0"), "--accumulate should be greater than or equal to 1, not 0"),
        (("--lr", "-1"), "--lr should be greater than or equal to 0, not -1.0"),
        (("--lr-backbone", "nan"), "--lr-backbone should be a finite number, not nan"),
        (("--weight-decay", "inf"), "--weight-decay should be a finite number, not inf"),
        (("--clip", "-0.1"), "--clip should be greater than or equal to 0, not -0.1"),
        (("--warmup-steps", "-1"), "--warmup-steps should be greater than or equal to 0, not -1"),
        (("--lr-turn", "1.5"), "--lr-turn should be less than or equal to 1, not 1.5"),
        (("--ema", "1"), "--ema should be less than 1, not 1.0"),
        (("--evaluate-every", "-1"), "--evaluate-every should be greater than or equal to 0, not -1.0"),
        (("--log-every", "0"), "--log-every should be greater than or equal to 1, not 0"),
        (("--save-every", "0"), "--save-every should be greater than or equal to 1, not 0"),
        (("--workers", "-1"), "--workers should be greater than or equal to 0, not -1"),
    ],
)
def test_settings_that_make_no_run_are_refused_in_a_line_that_names_the_option(
    words: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        read_recipe(options(*words))


@pytest.mark.parametrize(
    "settings", [{"epochs": None}, {"freeze": ("neck",)}, {"stage": "both"}, {"precision": "64"}, {"learning_rate": 1}]
)
def test_settings_that_there_are_not_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="1 validation error for TrainConfig"):
        TrainConfig(**settings)


def test_the_settings_of_a_run_are_plain_json() -> None:
    """They are in the provenance of weights and in files to resume from."""
    settings = asdict(RECIPES["detr-masks"].config)
    assert json.loads(json.dumps(settings)) == {
        "stage": "masks",
        "epochs": 25,
        "steps": None,
        "batch_size": 16,
        "accumulate": 1,
        "lr": 1e-4,
        "lr_backbone": 1e-5,
        "weight_decay": 1e-4,
        "warmup_steps": 0,
        "lr_schedule": "drop",
        "lr_turn": 0.6,
        "clip": 0.1,
        "ema": 0.0,
        "precision": "32-true",
        "multi_scale": True,
        "crop": False,
        "freeze": ["stem"],
        "activation_checkpointing": False,
        "evaluate_every": 1.0,
        "log_every": 20,
        "save_every": 1000,
        "workers": 2,
        "seed": 0,
    }


def test_every_setting_is_an_option_with_a_whole_sentence_and_a_name_for_its_value() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    actions = {action.dest: action for action in parser._actions}
    for field in fields(TrainConfig):
        action = actions[field.name]
        assert action.option_strings[0] == f"--{field.name.replace('_', '-')}"
        assert action.help is not None
        assert action.help.endswith(". The default is the recipe's.")
        assert action.metavar or action.choices or isinstance(action, argparse.BooleanOptionalAction)


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
