"""The commands of `detr` that need no server.

A command is a module with `add_arguments(parser)` and `run(args)`. It is imported when it is asked for and not
before, so that `detr serve` and `detr --help` work where torch is not installed.
"""

from __future__ import annotations

from typing import Any

COMMANDS = {
    "train": ("model.train", "Train a network on a folder of annotated pictures."),
    "evaluate": ("model.evaluate", "Measure AP and PQ of an artifact or a checkpoint."),
    "export": ("model.export", "Turn a checkpoint into the one file that is served, and prove that it answers alike."),
    "quantize": ("model.quantize", "Turn an artifact into int8, and write it only if it stays accurate."),
    "fetch": ("model.fetch", "Download a model by its name, check it, and make it the one file that is served."),
    "models": ("model.models", "List the models that are known by name, and which of them are on this machine."),
    "data": (
        "model.data.command",
        "Say what would be learnt from a data set, or divide it into training and validation.",
    ),
    "shapes": ("model.data.shapes.command", "Write a data set of synthetic scenes."),
}


def add_commands(subparsers: Any) -> None:
    """Add every command of this package to the subparsers of `detr`, which must be made of `CommandParser`."""
    for name, (module, summary) in COMMANDS.items():
        subparsers.add_parser(name, help=summary, description=summary, module=module)
