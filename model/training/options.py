"""The options of `detr train`, and the settings they come to: those of a recipe, with what was said otherwise."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from model.data.folders import KINDS
from model.network.config import PRESETS
from model.training.config import RECIPES, Precision, Recipe, Schedule, Stage, TrainConfig, default_recipe
from model.training.freezing import PARTS

# Every setting of `TrainConfig` is an option of its name; what is not given keeps the recipe's value.
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "stage": ("the detector, the mask head over the frozen detector of --init, or both", {"choices": get_args(Stage)}),
    "epochs": ("length of the run in passes over the data", {"type": float}),
    "steps": ("length of the run in optimizer steps", {"type": int}),
    "batch_size": ("pictures an optimizer step, in all processes together", {"type": int}),
    "accumulate": ("compute each batch in so many parts: same gradients, less memory", {"type": int}),
    "lr": ("learning rate", {"type": float}),
    "lr_backbone": ("learning rate of the backbone", {"type": float}),
    "weight_decay": ("of AdamW", {"type": float}),
    "warmup_steps": ("the rates rise over so many steps", {"type": int}),
    "lr_schedule": ("drop to a tenth, or decay to zero", {"choices": get_args(Schedule)}),
    "lr_turn": ("fraction of the run after which the rates drop or decay", {"type": float}),
    "clip": ("largest norm of the gradient; 0 for any", {"type": float}),
    "ema": ("decay of a moving average of the weights, which is what is saved; 0 for none", {"type": float}),
    "precision": ("of the network; matching and losses are float32", {"choices": get_args(Precision)}),
    "multi_scale": ("resize to a random scale", {"action": argparse.BooleanOptionalAction}),
    "crop": ("cut half of the pictures at random", {"action": argparse.BooleanOptionalAction}),
    "freeze": ("parts that stay as they are", {"nargs": "*", "choices": tuple(PARTS)}),
    "activation_checkpointing": (
        "compute activations again in the backward pass: less memory, more time",
        {"action": argparse.BooleanOptionalAction},
    ),
    "evaluate_every": ("epochs between validations; 0 for none", {"type": float}),
    "log_every": ("steps between lines of the log", {"type": int}),
    "save_every": ("steps between files to resume from", {"type": int}),
    "workers": ("processes that load data", {"type": int}),
    "seed": ("of weights, order and augmentation", {"type": int}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr train`."""
    parser.add_argument("--data", choices=KINDS, required=True, help="what --root holds")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoints, the log and the samples")
    recipes = "; ".join(f"{name}: {recipe.summary}" for name, recipe in RECIPES.items())
    parser.add_argument("--recipe", choices=RECIPES, help=f"settings to start from. {recipes}")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="network (default: the recipe's, or that of --init)")
    parser.add_argument(
        "--init", type=Path, help="start from a checkpoint: ours, a published .pth, Hugging Face's folder"
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="FILE|imagenet|none",
        help="start the backbone from torchvision's weights (default: the recipe's)",
    )
    parser.add_argument("--resume", type=Path, help="OUT/resume/last.ckpt: continue that run as if it had not stopped")
    parser.add_argument("--shortest-edge", type=int, help="pixels pictures are resized to (default: the network's)")
    parser.add_argument("--longest-edge", type=int, help="upper limit of the other side (default: the network's)")
    for name, (meaning, options) in _SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, default=argparse.SUPPRESS, help=f"{meaning} (default: the recipe's)", **options)
    parser.add_argument("--samples", type=int, default=8, help="validation pictures drawn (default: %(default)s)")
    parser.add_argument(
        "--skip-check",
        action="store_true",
        default=argparse.SUPPRESS,
        help="do not decode every picture before the first step",
    )
    parser.add_argument(
        "--accelerator", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: %(default)s)"
    )
    parser.add_argument("--devices", default="auto", help="processes on this machine (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1, help="machines (default: %(default)s)")


def read_recipe(args: argparse.Namespace) -> tuple[str, Recipe]:
    """The recipe that the options name, or that suits them, with its settings replaced by those given.

    Raises ValueError where there is nothing to train with them.
    """
    given = {field.name: getattr(args, field.name) for field in fields(TrainConfig) if hasattr(args, field.name)}
    name = args.recipe or default_recipe(args.data, given.get("stage"), args.init is not None)
    recipe = RECIPES[name]
    # The recipe's length is replaced whichever way the run's is given.
    length = {"epochs": None, "steps": None} if {"epochs", "steps"} & given.keys() else {}
    if "freeze" in given:
        given["freeze"] = tuple(given["freeze"])
    return name, replace(recipe, config=replace(recipe.config, **{**length, **given}))
