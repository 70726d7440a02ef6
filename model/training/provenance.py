"""What weights say of how they came about."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model.training.logs.log import read_log
from model.training.module import TrainingModule
from model.training.start.initial import StartingNetwork


def describe_run(
    args: argparse.Namespace, recipe: str, module: TrainingModule, start: StartingNetwork, figures: dict[str, float]
) -> dict[str, Any]:
    """The provenance of weights: how to make them again, from what, how long it took, and how good they are."""
    return {
        "command": command_line("train", args),
        "torch": torch.__version__,
        "recipe": recipe,
        "training": asdict(module.config),
        "steps": module.global_step,
        "hours": round(read_log(args.out / "log.jsonl")[-1].get("seconds", 0) / 3600, 2),
        "measured": {name: round(value, 4) for name, value in figures.items()},
        **start.sources,
    }


def command_line(command: str, args: argparse.Namespace) -> str:
    """A command with all its options, for provenance: a reader can run it again.

    Of a path only the name is kept: the rest means nothing on another machine, and may be private.
    """
    words = ["detr", command]
    for name, value in vars(args).items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):  # a switch that is not given has no value
            words.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, list | tuple):
            words += [option, *map(str, value)]
        elif isinstance(value, str | int | float | Path):
            words += [option, value.resolve().name if isinstance(value, Path) else str(value)]
    return shlex.join(words)
