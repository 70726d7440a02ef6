"""What the command line says of itself: every command and every option, in whole sentences."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO

import pytest

from service import cli
from service.settings import SECRETS, Settings

# It begins with a capital, or with the name of something in backticks or quotes.
SENTENCE = re.compile(r"[A-Z`'\"].*\.", re.DOTALL)


def commands() -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """All commands, those of the model with the options that they learn when they are first used."""
    (found,) = (
        action for action in cli.make_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )  # fmt: skip
    for parser in found.choices.values():
        with redirect_stdout(StringIO()), suppress(SystemExit):
            parser.parse_known_args(["--help"])
    return found


COMMANDS = commands()


def options() -> Iterator[tuple[str, argparse.Action]]:
    for name, parser in COMMANDS.choices.items():
        for action in parser._actions:
            if not isinstance(action, argparse._HelpAction):  # whose words are argparse's own
                yield f"{name} {action.option_strings[0] if action.option_strings else action.dest}", action


OPTIONS = dict(options())


def help_of(name: str) -> str:
    action = OPTIONS[name]
    assert action.help is not None
    return action.help % {"default": action.default}


def test_every_command_is_looked_at() -> None:
    assert len(COMMANDS.choices) == len(COMMANDS._choices_actions) == 9
    assert len(OPTIONS) > 100


@pytest.mark.parametrize("name", COMMANDS.choices)
def test_a_command_says_in_a_whole_sentence_what_it_does(name: str) -> None:
    (summary,) = (action.help for action in COMMANDS._choices_actions if action.dest == name)
    description = COMMANDS.choices[name].description
    assert summary is not None
    assert description is not None
    assert SENTENCE.fullmatch(summary)
    assert SENTENCE.fullmatch(description)
    assert description.startswith(summary)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_in_whole_sentences_what_it_does(name: str) -> None:
    assert SENTENCE.fullmatch(help_of(name))


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_its_default(name: str) -> None:
    action = OPTIONS[name]
    if action.default != argparse.SUPPRESS:
        default = action.default
    elif name.startswith("train "):  # a setting of the recipe, or a switch
        default = (
            None if action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction) else "the recipe's"
        )
    else:
        field = Settings.model_fields[action.dest]
        default = "one for each core" if field.default_factory else field.default
        default = str(default).lower() if isinstance(default, bool) else default
    if default not in (None, False, (), []):
        text = ", ".join(default) if isinstance(default, tuple) else default
        assert f"The default is {text}" in help_of(name)


@pytest.mark.parametrize("name", [name for name, action in OPTIONS.items() if action.nargs != 0])
def test_the_value_of_an_option_has_a_name_that_says_what_it_is(name: str) -> None:
    action = OPTIONS[name]
    if action.metavar is None:  # then the usage shows the choices
        assert action.choices
    else:
        assert action.metavar != "VALUE"
        assert not action.option_strings or action.metavar != action.dest.upper()


def test_every_setting_is_described_in_whole_sentences() -> None:
    assert {name for name in Settings.model_fields if f"serve --{name.replace('_', '-')}" not in OPTIONS} == SECRETS
    for name, field in Settings.model_fields.items():
        assert field.description is not None
        assert SENTENCE.fullmatch(field.description), name
