"""The options of `detr train`, and the settings they come to: those of a recipe, with what was said otherwise."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model.data.folders import DATASET_KINDS, DATASET_KINDS_IN_WORDS
from model.network.config import PRESETS
from model.training.config import RECIPES, Recipe, TrainConfig, default_recipe

_SETTINGS: dict[str, FieldInfo] = TrainConfig.__pydantic_fields__  # type: ignore[attr-defined]  # pydantic documents it


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
    for name, setting in _SETTINGS.items():
        parser.add_argument(_option(name), default=argparse.SUPPRESS, **_option_arguments(setting))
    _add_run_arguments(parser)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _option_arguments(setting: FieldInfo) -> dict[str, Any]:
    """How the option of a setting reads its value, and what it says of it."""
    kind, metavar = setting.annotation, next((word for word in setting.metadata if isinstance(word, str)), None)
    choices = get_args(get_args(kind)[0]) if get_origin(kind) is tuple else ()
    listed = f" There are {', '.join(choices)}." if choices else ""
    text = " ".join(f"{setting.description}{listed} The default is the recipe's.".split())
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": text}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "help": text}
    if choices:
        return {"nargs": "*", "choices": choices, "metavar": metavar, "help": text}
    return {"type": float if float in (kind, *get_args(kind)) else int, "metavar": metavar, "help": text}


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
    given = {name: value for name, value in vars(args).items() if name in _SETTINGS}
    name = args.recipe or default_recipe(args.data, given.get("stage"), args.init is not None)
    recipe = RECIPES[name]
    # The recipe's length is replaced whichever way the run's is given.
    length = {"epochs": None, "steps": None} if {"epochs", "steps"} & given.keys() else {}
    try:
        config = replace(recipe.config, **{**length, **given})
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from error
    return name, replace(recipe, config=config)


def _first_problem(error: ValidationError) -> str:
    """What is wrong with the settings, in a line that names the option."""
    problem = error.errors(include_url=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # it is about several, and names them
        return reason
    return f"{_option(str(problem['loc'][0]))} {reason.replace('Input should', 'should')}, not {problem['input']}"
