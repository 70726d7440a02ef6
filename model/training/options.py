"""The options of `detr train`, and the settings they come to: those of a recipe, with what was said otherwise."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

from model.data.folders import DATASET_KINDS, DATASET_KINDS_IN_WORDS
from model.network.config import PRESETS
from model.training.config import (
    RECIPES,
    Recipe,
    Schedule,
    TrainConfig,
    TrainingPrecision,
    TrainingStage,
    default_recipe,
)
from model.training.freezing import FREEZABLE_PARTS

# Every setting of `TrainConfig` is an option of its name; what is not given keeps the recipe's value.
_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "stage": (
        "Train the detector (detection), the mask head over the frozen detector of --init (masks), or both at once "
        "(joint).",
        {"choices": get_args(TrainingStage)},
    ),
    "epochs": (
        "Train for this many passes over the data; a part of one counts too.",
        {"type": float, "metavar": "COUNT"},
    ),
    "steps": ("Train for this many optimizer steps, instead of --epochs.", {"type": int, "metavar": "COUNT"}),
    "batch_size": (
        "Learn from this many pictures in each optimizer step, in all processes together.",
        {"type": int, "metavar": "COUNT"},
    ),
    "accumulate": (
        "Compute each batch in this many parts, which gives the same gradients and takes less memory; it has to "
        "divide the batch size.",
        {"type": int, "metavar": "COUNT"},
    ),
    "lr": ("Set the learning rate of all but the backbone.", {"type": float, "metavar": "RATE"}),
    "lr_backbone": ("Set the learning rate of the backbone.", {"type": float, "metavar": "RATE"}),
    "weight_decay": ("Set AdamW's weight decay.", {"type": float, "metavar": "FACTOR"}),
    "warmup_steps": (
        "Let the learning rates rise linearly over this many optimizer steps at the start.",
        {"type": int, "metavar": "COUNT"},
    ),
    "lr_schedule": (
        "Drop the learning rates to a tenth after --lr-turn (drop), or let them fall linearly to zero from there on "
        "(decay).",
        {"choices": get_args(Schedule)},
    ),
    "lr_turn": (
        "Drop the learning rates, or begin to decay them, after this fraction of the run, from 0 to 1.",
        {"type": float, "metavar": "FRACTION"},
    ),
    "clip": ("Scale gradients down to this norm; 0 leaves them as they are.", {"type": float, "metavar": "NORM"}),
    "ema": (
        "Validate and save a moving average of the weights, which keeps this share of itself in each step; 0 takes "
        "the weights themselves.",
        {"type": float, "metavar": "FRACTION"},
    ),
    "precision": (
        "Compute the network in this precision; matching and losses are computed in float32 in any case.",
        {"choices": get_args(TrainingPrecision)},
    ),
    "multi_scale": (
        "Resize each picture to a size drawn between 0.6 and 1 times the network's.",
        {"action": argparse.BooleanOptionalAction},
    ),
    "crop": ("Cut a random rectangle out of half of the pictures.", {"action": argparse.BooleanOptionalAction}),
    "freeze": (
        f"Leave these parts of the network exactly as they are: {', '.join(FREEZABLE_PARTS)}.",
        {"nargs": "*", "choices": tuple(FREEZABLE_PARTS), "metavar": "PART"},
    ),
    "activation_checkpointing": (
        "Compute activations a second time in the backward pass, which takes less memory and more time.",
        {"action": argparse.BooleanOptionalAction},
    ),
    "evaluate_every": (
        "Validate after every so many epochs; a part of one counts too, and 0 never validates.",
        {"type": float, "metavar": "EPOCHS"},
    ),
    "log_every": ("Write a line of the log after every so many optimizer steps.", {"type": int, "metavar": "STEPS"}),
    "save_every": (
        "Write the file to resume from after every so many optimizer steps.",
        {"type": int, "metavar": "STEPS"},
    ),
    "workers": (
        "Load pictures in this many processes beside each one that trains; 0 loads them in that process itself.",
        {"type": int, "metavar": "COUNT"},
    ),
    "seed": (
        "Draw fresh weights, the order of the pictures and their augmentation from this seed.",
        {"type": int, "metavar": "NUMBER"},
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr train`."""
    parser.add_argument(
        "--data",
        choices=DATASET_KINDS,
        required=True,
        help=f"Read this kind of data set: {DATASET_KINDS_IN_WORDS}.",
    )
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="Read the data set in this folder.")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="Write checkpoints, log and samples to this folder."
    )
    _add_start_arguments(parser)
    for name, (meaning, options) in _SETTINGS.items():
        option = f"--{name.replace('_', '-')}"
        help_text = f"{meaning} The default is the recipe's."
        parser.add_argument(option, default=argparse.SUPPRESS, help=help_text, **options)
    _add_run_arguments(parser)


def _add_start_arguments(parser: argparse.ArgumentParser) -> None:
    recipes = ", ".join(f"{name} ({recipe.summary})" for name, recipe in RECIPES.items())
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help=f"Start from the settings of this recipe, each of which an option replaces. There are {recipes}. The "
        "default follows from --data, --stage and --init.",
    )
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="Build this network; with --init it only tells whether the checkpoint is a DC5. The default is the "
        "recipe's network, or that of --init.",
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="CHECKPOINT",
        help="Start from the weights of a checkpoint: one of `detr train`, a published .pth, or a Hugging Face folder.",
    )
    parser.add_argument(
        "--backbone-weights",
        metavar="FILE|imagenet|none",
        help="Start the backbone from a file of torchvision's weights, from those for ImageNet, which are downloaded, "
        "or from none. The default is the recipe's.",
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="FILE",
        help="Continue the run that wrote this file, OUT/resume/last.ckpt, as if it had not stopped.",
    )
    parser.add_argument(
        "--shortest-edge",
        type=int,
        metavar="PIXELS",
        help="Resize pictures to this shorter side, as far as --longest-edge allows. The default is the network's.",
    )
    parser.add_argument(
        "--longest-edge",
        type=int,
        metavar="PIXELS",
        help="Keep the longer side of resized pictures to this. The default is the network's.",
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        type=int,
        default=8,
        metavar="COUNT",
        help="Draw this many validation pictures at every validation. The default is %(default)s.",
    )
    parser.add_argument(
        "--skip-check",
        action="store_true",
        default=argparse.SUPPRESS,
        help="Begin without reading every picture once to see whether it can be learnt from.",
    )
    parser.add_argument(
        "--accelerator",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="Train on this kind of device; auto takes a GPU where there is one. The default is %(default)s.",
    )
    parser.add_argument(
        "--devices",
        default="auto",
        metavar="COUNT",
        help="Train on this many devices of each machine, with a process for each; auto takes all GPUs, or one process "
        "on a CPU. The default is %(default)s.",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="COUNT",
        help="Train on this many machines. The default is %(default)s.",
    )


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
