"""The options of `detr train`, and the settings they come to: those of a recipe, with what was said otherwise."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model.data.options import add_file_arguments, add_kind_arguments
from model.network.config import PRESETS
from model.training.logs.loggers import LOGGERS
from model.training.settings.choosing import fast_precision, small_note, why_small
from model.training.settings.config import TrainConfig
from model.training.settings.recipes import RECIPES, Recipe, default_recipe

_SETTINGS: dict[str, FieldInfo] = TrainConfig.__pydantic_fields__  # type: ignore[attr-defined]  # pydantic documents it

# Of options that a run which goes on may have otherwise, or has as it had them.
_DEFAULTS: dict[str, Any] = {
    "samples": 8,
    "logger": ["tensorboard"],
    "accelerator": "auto",
    "devices": "auto",
    "nodes": 1,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr train`."""
    add_kind_arguments(parser, required=False)
    add_file_arguments(parser, of="the annotations to learn from")
    add_file_arguments(parser, prefix="val-", of="the annotations to validate with")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="Write checkpoints, log and samples to this folder, which must hold no run. The default is the next free "
        "one of runs/1, runs/2 and so on.",
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
    element = get_args(kind)[0] if get_origin(kind) is tuple else None
    choices = get_args(element) if get_origin(element) is Literal else ()
    listed = f" There are {', '.join(choices)}." if choices else ""
    text = " ".join(f"{setting.description}{listed} The default is the recipe's.".split())
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": text}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind), "help": text}
    if element is not None:
        plain = get_args(element)[0] if get_origin(element) is Annotated else element
        reading = {"choices": choices} if choices else {"type": plain}
        return {"nargs": "*", "metavar": metavar, "help": text, **reading}
    words = [word for each in get_args(kind) if get_origin(each) is Literal for word in get_args(each)]
    number = float if float in (kind, *get_args(kind)) else int
    return {"type": _or_word(words) if words else number, "metavar": metavar, "help": text}


def _or_word(words: Sequence[str]) -> Callable[[str], int | str]:
    """A reader of whole numbers that knows some words, too."""

    def read(text: str) -> int | str:
        return text if text in words else int(text)

    return read


def _add_start_arguments(parser: argparse.ArgumentParser) -> None:
    recipes = ", ".join(f"{name} ({recipe.summary})" for name, recipe in RECIPES.items())
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        help=f"Start from the settings of this recipe, each of which an option replaces. There are {recipes}. The "
        "default follows from --data, --stage, --init and --preset, and where these tell no start, from how many "
        "pictures there are and whether there is a GPU.",
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
        metavar="CHECKPOINT|NAME",
        help="Start from the weights of a checkpoint: one of `detr train`, a published .pth, a Hugging Face folder, or "
        "a model on the hub (OWNER/NAME or OWNER/NAME@REVISION).",
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
        metavar="RUN",
        help="Go on with the run in this folder as if it had not stopped, by its own options. Those of "
        "its length, its files, its machine and its memory may be others, and --root, where the data have moved.",
    )
    parser.add_argument(
        "--num-queries",
        type=_count,
        metavar="COUNT",
        help="Let the network find this many objects in a picture at most. The default is that of --init, the recipe "
        "or the preset, and more in a fresh network where a picture has more objects.",
    )
    parser.add_argument(
        "--shortest-edge",
        type=int,
        metavar="PIXELS",
        help="Resize pictures to this shorter side, as far as --longest-edge allows. The default is the recipe's or "
        "the network's.",
    )
    parser.add_argument(
        "--longest-edge",
        type=int,
        metavar="PIXELS",
        help="Keep the longer side of resized pictures to this. The default is the recipe's or the network's.",
    )


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        type=int,
        metavar="COUNT",
        help="Draw this many validation pictures at every validation. The default is 8.",
    )
    parser.add_argument(
        "--logger",
        nargs="*",
        choices=LOGGERS,
        metavar="NAME",
        help=f"Write the figures of the run for these, too, besides OUT/log.jsonl. There are {', '.join(LOGGERS)}. The "
        "default is tensorboard.",
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
        help="Train on this kind of device; auto takes a GPU where there is one. The default is auto.",
    )
    parser.add_argument(
        "--devices",
        metavar="COUNT",
        help="Train on this many devices of each machine, with a process for each; auto takes all GPUs, or one process "
        "on a CPU. The default is auto.",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        metavar="COUNT",
        help="Train on this many machines. The default is 1.",
    )


def with_defaults(args: argparse.Namespace) -> argparse.Namespace:
    """The options with what is not asked for. Raises ValueError where that cannot be guessed."""
    if args.data is None:
        raise ValueError("--data and --root say what to learn from, or --resume RUN which run to go on with")
    missing = {name: value for name, value in _DEFAULTS.items() if vars(args)[name] is None}
    return argparse.Namespace(**vars(args) | missing)


def checked(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration with these settings. Raises ValueError, naming the option, where that makes no run."""
    try:
        return replace(config, **settings)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from error


def read_recipe(args: argparse.Namespace, pictures: int | None = None) -> tuple[str, Recipe]:
    """The recipe that the options name, or that suits them, with its settings replaced by those given.

    With the number of `pictures` to learn from, the recipe suits these, too; its stage, and whether it validates, do
    not depend on them. Raises ValueError where there is nothing to train with the options.
    """
    given = {name: value for name, value in vars(args).items() if name in _SETTINGS}
    reason = None if pictures is None or _start_is_told(args) else why_small(pictures, args.accelerator)
    name = args.recipe or default_recipe(
        args.data, given.get("stage"), args.init is not None, args.preset, small=reason is not None
    )
    recipe = RECIPES[name]
    summary = f"{recipe.summary}, {small_note(reason)}" if name == "small" and reason else recipe.summary
    notes = []
    # The recipe's length is replaced whichever way the run's is given.
    length = {"epochs": None, "steps": None} if {"epochs", "steps"} & given.keys() else {}
    config = checked(recipe.config, {**length, **given})
    if config.precision == "auto":
        config = replace(config, precision=fast_precision(args.accelerator))
        notes.append(f"precision {config.precision}: what is fast here")
    if pictures and config.batch_size > pictures and "batch_size" in given:
        raise ValueError(f"--batch-size {config.batch_size} is more than the {pictures} pictures there are: give less")
    if pictures and (size := _filled(config, pictures)) != config.batch_size:
        notes.append(f"batches of {size}: there are fewer pictures than the {config.batch_size} of the recipe's batch")
        config = replace(config, batch_size=size)
    return name, replace(recipe, config=config, summary=summary, notes=tuple(notes))


def _start_is_told(args: argparse.Namespace) -> bool:
    """Whether the options say what network, or what weights, to start from."""
    return bool(args.recipe or args.init or args.preset or args.backbone_weights not in (None, "none"))


def _filled(config: TrainConfig, pictures: int) -> int:
    """The batch size of a configuration, or the largest below it that so many pictures fill, if any."""
    if pictures >= config.batch_size:
        return config.batch_size
    return pictures // config.parts * config.parts or config.batch_size


def _first_problem(error: ValidationError) -> str:
    """What is wrong with the settings, in a line that names the option."""
    problem = error.errors(include_url=False)[0]
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # it is about several, and names them
        return reason
    return f"{_option(str(problem['loc'][0]))} {reason.replace('Input should', 'should')}, not {problem['input']}"
