"""The commands of `detr` that need no server.

A command is a module with `add_arguments(parser)` and `run(args)`. It is imported when it is asked for and not
before, so that `detr serve` and `detr --help` work where torch is not installed.
"""

from __future__ import annotations

import argparse
import importlib
from typing import Any

from model.runtime.installing import needs

COMMANDS = {
    "train": ("model.train", "Train a network on a data set in COCO's format."),
    "evaluate": ("model.evaluate", "Measure AP and PQ of an artifact or a checkpoint."),
    "export": ("model.export", "Turn a checkpoint into the one file that is served, and prove that it answers alike."),
    "quantize": ("model.quantize", "Turn an artifact into int8, and write it only if it stays accurate."),
    "fetch": ("model.fetch", "Download a model by its name, check it, and make it the one file that is served."),
    "models": ("model.models", "List the models that are known by name, and which of them are on this machine."),
    "shapes": ("model.data.shapes.command", "Write a data set of synthetic scenes."),
}


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which learns its arguments from the command's module when it is first used."""

    module: str | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, after importing the command."""
        if self.module is not None:
            command = import_command(self.prog, self.module)
            self.module = None
            command.add_arguments(self)
            self.set_defaults(run=command.run)
        return super().parse_known_args(args, namespace)


def import_command(prog: str, module: str) -> Any:
    """Import a command; where a package of the `train` extra is missing, say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("model", "service"):
            raise
        raise SystemExit(needs(prog, error)) from None


def add_commands(subparsers: Any) -> None:
    """Add every command of this package to the subparsers of `detr`, which must be made of `CommandParser`."""
    for name, (module, summary) in COMMANDS.items():
        subparsers.add_parser(name, help=summary, description=summary).module = module
