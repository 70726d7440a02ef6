"""Settings of a run: what is refused, how long it is, and how fast it learns when."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.network.config import PRESETS
from model.training.settings.config import TrainConfig
from model.training.settings.options import add_arguments, read_recipe, with_defaults
from model.training.settings.recipes import RECIPES, default_recipe

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
    schedule=st.sampled_from(["drop", "step", "decay", "cosine"]),
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
        (
            ("--cost-class", "0", "--cost-box", "0", "--cost-giou", "0"),
            "--cost-class, --cost-box and --cost-giou are all 0: nothing would decide what is matched",
        ),
        (("--dice-loss-weight", "-1"), "--dice-loss-weight should be greater than or equal to 0, not -1.0"),
        (("--patience", "-1"), "--patience should be greater than or equal to 0, not -1"),
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
        "accumulate": "auto",
        "lr": 1e-4,
        "lr_backbone": 1e-5,
        "weight_decay": 1e-4,
        "warmup_steps": 0,
        "lr_schedule": "drop",
        "lr_turn": 0.6,
        "lr_drops": [0.6, 0.9],
        "class_loss_weight": 1.0,
        "l1_loss_weight": 5.0,
        "giou_loss_weight": 2.0,
        "mask_loss_weight": 1.0,
        "dice_loss_weight": 1.0,
        "no_object_weight": 0.1,
        "class_weights": [],
        "repeat_threshold": 0.0,
        "cost_class": 1.0,
        "cost_box": 5.0,
        "cost_giou": 2.0,
        "clip": 0.1,
        "ema": 0.0,
        "precision": "32-true",
        "augment": ["flip", "multi-scale"],
        "freeze": ["stem"],
        "activation_checkpointing": False,
        "evaluate_every": 1.0,
        "patience": 0,
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


@pytest.mark.parametrize(
    ("data", "preset", "stage", "has_init", "name"),
    [
        ("coco", "detr-demo", None, False, "small"),
        ("coco-panoptic", "detr-demo", "joint", False, "small"),
        ("shapes", "detr-demo", None, False, "demo"),
        ("shapes", "detr-resnet-50", None, False, "detr-300"),
        ("coco", "detr-resnet-101-dc5", None, False, "detr-300"),
        ("coco", "detr-resnet-50-dc5", None, True, "fine-tune"),
    ],
)
def test_a_preset_chooses_its_recipe(data: str, preset: str, stage: Any, has_init: bool, name: str) -> None:
    assert default_recipe(data, stage, has_init, preset) == name
    config = RECIPES[name].config
    assert not config.freeze or PRESETS[preset].frozen_batch_norm, "a random stem would be frozen"


@pytest.mark.parametrize(
    ("words", "pictures", "gpu", "name", "reason"),
    [
        ((), 205, False, "small", "there are only 205 pictures and there is no GPU to train on"),
        ((), 205, True, "small", "there are only 205 pictures:"),
        ((), 100_000, False, "small", "there is no GPU to train on:"),
        (("--accelerator", "cpu"), 100_000, True, "small", "there is no GPU to train on:"),
        (("--backbone-weights", "none"), 205, True, "small", "there are only 205 pictures:"),
        ((), 100_000, True, "detr-300", None),
        (("--backbone-weights", "imagenet"), 205, False, "detr-300", None),
        (("--init", "mine.pth"), 205, False, "fine-tune", None),
        (("--recipe", "detr-500"), 205, False, "detr-500", None),
        (("--recipe", "small"), 100_000, True, "small", None),
    ],
)
def test_few_pictures_and_slow_machines_get_a_recipe_that_learns_something_and_are_told_so(
    words: tuple[str, ...], pictures: int, gpu: bool, name: str, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    found, recipe = read_recipe(options(*words), pictures)
    assert found == name
    assert ("chosen because" in recipe.summary) == (reason is not None)
    if reason:
        assert f"chosen because {reason}" in recipe.summary
        assert "--init facebook/detr-resnet-50" in recipe.summary
        assert "\n" not in recipe.summary


def test_precision_is_what_is_fast_on_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for amx, precision in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        config = read_recipe(options("--recipe", "small"))[1].config
        assert config.precision == precision


def test_a_batch_is_no_larger_than_the_data_where_none_was_asked_for() -> None:
    assert read_recipe(options("--recipe", "small"), 6)[1].config.batch_size == 6
    assert read_recipe(options("--recipe", "small", "--accumulate", "4"), 6)[1].config.batch_size == 4
    with pytest.raises(ValueError, match=r"--batch-size 16 is more than the 10 pictures there are: give less"):
        read_recipe(options("--recipe", "small", "--batch-size", "16"), 10)


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return with_defaults(parser.parse_args(["--data", "coco", "--root", "mine", "--out", "out", *words]))


def test_rates_drop_several_times_or_fall_along_a_cosine() -> None:
    drops = TrainConfig(lr_schedule="step", lr_drops=(0.5, 0.8))
    assert [drops.lr_factor(step, 10) for step in (0, 4, 5, 7, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = TrainConfig(lr_schedule="cosine", warmup_steps=2)
    assert [cosine.lr_factor(step, 10) for step in (0, 1, 2, 6, 10)] == pytest.approx([0.5, 1, 1, 0.5, 0])
    assert read_recipe(options("--lr-schedule", "step", "--lr-drops", "0.5", "0.8"))[1].config.lr_drops == (0.5, 0.8)
    with pytest.raises(ValueError, match=r"^--lr-drops should be less than or equal to 1, not 2\.0$"):
        read_recipe(options("--lr-drops", "0.5", "2"))


def test_validations_are_as_many_in_a_run_as_its_recipe_says() -> None:
    assert TrainConfig(epochs=None, steps=7500, evaluate_every=None).evaluation_steps(batches=12) == 250
    assert TrainConfig(evaluate_every=0.5).evaluation_steps(batches=12) == 6
    assert TrainConfig(evaluate_every=0).evaluation_steps(batches=12) == 0


def test_an_option_replaces_the_recipes_setting_and_leaves_the_others() -> None:
    published = RECIPES["detr-500"].config
    name, recipe = read_recipe(
        options("--recipe", "detr-500", "--lr", "0.5", "--augment", "colour", "--freeze", "backbone")
    )
    assert name == "detr-500"
    assert recipe.config == replace(published, lr=0.5, augment=("colour",), freeze=("backbone",))


def test_a_length_replaces_the_recipes_however_it_is_given() -> None:
    _, recipe = read_recipe(options("--steps", "9"))
    assert (recipe.config.epochs, recipe.config.steps) == (None, 9)
    _, recipe = read_recipe(options("--recipe", "demo", "--epochs", "2"))
    assert (recipe.config.epochs, recipe.config.steps) == (2, None)
    with pytest.raises(ValueError, match="one of the two"):
        read_recipe(options("--steps", "9", "--epochs", "1"))
