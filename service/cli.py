"""The command `detr`: `serve`, `predict` and `bench` are here, the commands of the model beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import get_args

from model.cli import CommandParser, add_commands
from service import predict
from service.bench import command as bench
from service.lifecycle.service import StartupError
from service.server import BAD_SETTING, STARTUP_FAILED, run
from service.settings import ENV_PREFIX, SECRETS, Device, LogLevel, Precision, Settings, SettingsError, read_settings

_CHOICES = {"device": get_args(Device), "precision": get_args(Precision), "log_level": get_args(LogLevel)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 if it did what it should, 1 if not, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="detr", description="Train, export and serve DETR.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    add_serve(commands.add_parser("serve", help="run the service", description=_SERVE))
    summary = "find objects or segments in image files, without a server"
    predict.add_arguments(commands.add_parser("predict", help=summary, description=summary))
    summary = "measure how fast a service answers, or a model file behind one of its own"
    bench.add_arguments(commands.add_parser("bench", help=summary, description=summary))
    add_commands(commands)
    args = parser.parse_args(argv)
    return int(args.run(args) or 0)


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr serve`: one for every setting that is no secret, checked where settings are."""
    for name, field in Settings.model_fields.items():
        if name in SECRETS:
            continue
        default = field.get_default(call_default_factory=True)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=argparse.SUPPRESS,
            choices=_CHOICES.get(name),
            metavar=None if name in _CHOICES else "VALUE",
            help=f"{field.description}{'' if default in (None, ()) else f' (default: {default})'}".replace("%", "%%"),
        )
    parser.set_defaults(run=serve)


def serve(args: argparse.Namespace) -> int:
    """Run the service; what goes wrong before it serves is one line on standard error."""
    given = {name: value for name, value in vars(args).items() if name in Settings.model_fields}
    try:
        return run(read_settings(given))
    except SettingsError as error:
        print(f"detr serve: {error}", file=sys.stderr)
        return BAD_SETTING
    except StartupError as error:
        print(f"detr serve: {error}", file=sys.stderr)
        return STARTUP_FAILED


_SERVE = (
    f"Run the service. Every option is also an environment variable: {ENV_PREFIX} and its name in capitals. Keys are "
    f"given in files or in {ENV_PREFIX}API_KEYS, never as an option. "
    "Exit codes: 0 after a clean shutdown, 1 if it cannot start, 2 for a bad setting, 3 if a shutdown had to "
    "abandon accepted requests, 4 if the engine hung or could not be opened again, "
    "128 and the signal's number after a second signal."
)

if __name__ == "__main__":
    sys.exit(main())
