"""The command `detr`: `serve`, `predict` and `bench` are here, the commands of the model beside them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from model.cli import add_commands
from model.command_parser import CommandParser
from service import doctor
from service.bench import command as bench
from service.lifecycle.service import StartupError
from service.predict import command as predict
from service.predict import explain
from service.process.options import add_option, given_settings
from service.process.streams import INTERRUPTED, ends_with_its_readers, open_standard_streams
from service.server import BAD_SETTING, STARTUP_FAILED, run
from service.settings import (
    ENV_PREFIX,
    SECRETS,
    Settings,
    SettingsError,
    read_settings,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    It is 0 if the command did what it should, 1 if not, 2 for bad arguments, 130 where somebody pressed Ctrl-C, and 141
    where nobody reads its output any more; that ends it without a word, as in every shell pipe.
    """
    open_standard_streams()
    with ends_with_its_readers():
        try:
            args = make_parser().parse_args(argv)
            return int(args.run(args) or 0)
        except KeyboardInterrupt:
            return INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """The parser of `detr`, with one for each command below it."""
    parser = CommandParser(prog="detr", description="Train, export and serve DETR.")
    parser.add_argument("--version", action="version", version=f"detr {version('detr-serve')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)
    add_serve(commands.add_parser("serve", help=_SERVE, description=f"{_SERVE} {_SERVE_MORE}"))
    predict.add_arguments(commands.add_parser("predict", help=_PREDICT, description=f"{_PREDICT} {_PREDICT_MORE}"))
    explain.add_arguments(commands.add_parser("explain", help=_EXPLAIN, description=f"{_EXPLAIN} {_EXPLAIN_MORE}"))
    bench.add_arguments(commands.add_parser("bench", help=_BENCH, description=_BENCH))
    doctor.add_arguments(commands.add_parser("doctor", help=_DOCTOR, description=f"{_DOCTOR} {_DOCTOR_MORE}"))
    add_commands(commands)
    return parser


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr serve`: the model, and one for every setting that is no secret, checked there."""
    parser.add_argument("model_word", nargs="?", metavar="MODEL", help="Serve this model; the same as --model.")
    for name in Settings.model_fields:
        if name not in SECRETS:
            add_option(parser, name)
    parser.set_defaults(run=run_service)


def run_service(args: argparse.Namespace) -> int:
    """Run the service; what goes wrong before it serves is one line on standard error."""
    try:
        given = given_settings(args)
        if args.model_word is not None:
            if "model" in given:
                raise SettingsError(f"there are two models, {args.model_word} and --model {given['model']}: give one")
            given["model"] = args.model_word
        return run(read_settings(given))
    except SettingsError as error:
        print(f"detr serve: {error}", file=sys.stderr)
        return BAD_SETTING
    except StartupError as error:
        print(f"detr serve: {error}", file=sys.stderr)
        return STARTUP_FAILED


_VARIABLES = f"an environment variable: {ENV_PREFIX} and its name in capitals, with _ for -."
_SERVE = "Run the service."
_SERVE_MORE = (
    f"Every option is also {_VARIABLES} Keys are given in files or in {ENV_PREFIX}API_KEYS, never as an option. "
    "Exit codes: 0 after a clean shutdown, 1 if it cannot start, 2 for a bad setting, 3 if a shutdown had to "
    "abandon accepted requests, 4 if the last engine hung or could not be opened again, "
    "128 and the signal's number after a second signal."
)
_PREDICT = "Find objects or segments in image files, without a server."
_PREDICT_MORE = (
    "Answers are those of a service with the same settings. Those without an option here are taken from the "
    f"environment, where every option of `detr serve` is {_VARIABLES}"
)
_EXPLAIN = "Show where the network looked for each object in a picture, and from points of it."
_EXPLAIN_MORE = "It takes a model that was exported with `detr export --attention`."
_DOCTOR = "Say what works on this machine, what does not and why, and the command that would change it."
_DOCTOR_MORE = (
    "The demo model is opened on each device, and has to answer its golden sample. The exit code is 0 if serving "
    "works, and 1 if not."
)
_BENCH = "Measure how fast a service answers, or a model file behind a service of its own."

if __name__ == "__main__":
    sys.exit(main())
