"""Settings as options of a command line, and what of the environment is none."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from model.runtime.nearest import did_you_mean
from service.setting_types import Metavar
from service.settings import ENV_PREFIX, Settings, flag_of, variable_of


def add_option(options: argparse._ActionsContainer, field: str) -> None:
    """Add the flag of a setting to a parser or to a group of one; `given_settings` finds what was given by it."""
    hint, info = get_type_hints(Settings, include_extras=True)[field], Settings.model_fields[field]
    is_default_told = info.default not in (None, ()) and info.default_factory is None
    default = f" The default is {_text(info.default)}." if is_default_told else ""
    options.add_argument(
        flag_of(field),
        default=argparse.SUPPRESS,
        choices=get_args(hint) if get_origin(hint) is Literal else None,
        metavar=next(_metavars(hint), None),
        help=" ".join(f"{info.description}{default}".split()),
    )


def given_settings(args: argparse.Namespace) -> dict[str, str]:
    """The settings among parsed arguments, as `read_settings` takes them."""
    return {name: value for name, value in vars(args).items() if name in Settings.model_fields}


def unknown_variables() -> list[str]:
    """What the environment has that looks like a setting and is none, each with the question whether another was meant.

    Others with this prefix are not told of: who starts the service may have some of their own.
    """
    known = [variable_of(field) for field in Settings.model_fields]
    given = sorted(name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)
    questions = {name: did_you_mean(name, known) for name in given}
    return [f"{name} is no setting and changes nothing{question}" for name, question in questions.items() if question]


def _text(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _metavars(hint: Any) -> Iterator[str]:
    for part in get_args(hint):
        if isinstance(part, Metavar):
            yield part.name
        else:
            yield from _metavars(part)
