"""How the command line reads: mistakes are one line that says what to do, and long lists stay out of the usage."""

from __future__ import annotations

import argparse
import importlib
from typing import Any, NoReturn

from model.runtime.installing import needs
from model.runtime.nearest import did_you_mean

_FEW = 3  # choices that stand in the usage themselves


class HelpFormatter(argparse.HelpFormatter):
    """Shows few choices as `a|b`, and of many only the kind, which the description then lists."""

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Any:
        if action.metavar is None and action.choices is not None:
            choices = [str(choice) for choice in action.choices]
            shown = "|".join(choices) if len(choices) <= _FEW else action.dest.rpartition("_")[2].upper()
            return lambda size: (shown,) * size
        return super()._metavar_formatter(action, default_metavar)

    def _expand_help(self, action: argparse.Action) -> str:
        text = super()._expand_help(action)
        if action.metavar is None and action.choices is not None:
            choices = [str(choice) for choice in action.choices]
            if len(choices) > _FEW and not all(choice in text for choice in choices):
                return f"{text} There are {', '.join(choices)}."
        return text


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which learns its arguments from the command's module when it is first used.

    A mistake ends the process with exit code 2 and one line on standard error.
    """

    def __init__(self, *args: Any, module: str | None = None, **options: Any) -> None:
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, **options)
        self._module = module

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, after importing the command; what is not known is a mistake of this command."""
        if self._module is not None:
            command = import_command(self.prog, self._module)
            self._module = None
            command.add_arguments(self)
            self.set_defaults(run=command.run)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._unknown(unknown[0]))
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """End with one line; argparse's own puts the whole usage before it."""
        self.exit(2, f"{self.prog}: {message.removeprefix('argument ').rstrip('.')} (see {self.prog} --help)\n")

    def _unknown(self, word: str) -> str:
        if not word.startswith("-"):
            return f"there is no place for the argument {word!r}"
        option = word.partition("=")[0]
        options = [each for action in self._actions for each in action.option_strings if each.startswith("--")]
        return f"there is no option {option}{did_you_mean(option, options)}"

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if isinstance(error.__context__, argparse.ArgumentTypeError):  # which said it in words of its own
                raise
            kind = "a whole number" if action.type is int or _is_number(arg_string) else "a number"
            raise argparse.ArgumentError(action, f"{arg_string!r} is not {kind}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            question = did_you_mean(str(value), choices)
            raise argparse.ArgumentError(action, f"there is no {value!r}; use {', '.join(choices)}{question}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def import_command(prog: str, module: str) -> Any:
    """Import a command; where a package of the `train` extra is missing, say how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("model", "service"):
            raise
        raise SystemExit(needs(prog, error)) from None
