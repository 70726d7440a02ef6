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

Options = dict[str, argparse.Action]


@pytest.fixture(scope="module")
def commands() -> argparse._SubParsersAction[argparse.ArgumentParser]:
    """All commands, those of the model with the options that they learn when they are first used."""
    (found,) = (each for each in cli.make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    for parser in found.choices.values():
        with redirect_stdout(StringIO()), suppress(SystemExit):
            parser.parse_known_args(["--help"])
    return found


def actions_of(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.Action]]:
    """Every argument of a command, and of the commands below it, with the command's name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from actions_of(f"{name} {word}", below)
        elif not isinstance(action, argparse._HelpAction):
            yield name, action


@pytest.fixture(scope="module")
def options(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> Options:
    """Every argument of every command but `--help`, whose words are argparse's own."""
    return {
        f"{name} {action.option_strings[0] if action.option_strings else action.dest}": action
        for command, parser in commands.choices.items()
        for name, action in actions_of(command, parser)
    }


def help_of(action: argparse.Action) -> str:
    return (action.help or "") % {"default": action.default}


def default_of(name: str, action: argparse.Action) -> str | None:
    """What the help has to call the default; None where there is nothing to be said of it."""
    default = action.default
    if default == argparse.SUPPRESS and name.startswith("train "):  # a setting of the recipe, or a plain switch
        return None if action.nargs == 0 and not isinstance(action, argparse.BooleanOptionalAction) else "the recipe's"
    if default == argparse.SUPPRESS:
        field = Settings.model_fields[action.dest]
        default = "one for each core" if field.default_factory else field.default
        default = str(default).lower() if isinstance(default, bool) else default
    if default in (None, False, (), []):
        return None
    return ", ".join(default) if isinstance(default, tuple) else str(default)


def test_a_command_says_in_whole_sentences_what_it_does(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    summaries = {action.dest: action.help or "" for action in commands._choices_actions}
    assert summaries.keys() == commands.choices.keys()
    assert len(summaries) == 13
    for name, summary in summaries.items():
        description = commands.choices[name].description or ""
        assert SENTENCE.fullmatch(summary), name
        assert SENTENCE.fullmatch(description), name
        assert description.startswith(summary), name


def test_an_option_says_in_whole_sentences_what_it_does(options: Options) -> None:
    assert len(options) > 100
    assert [name for name, action in options.items() if not SENTENCE.fullmatch(help_of(action))] == []


def test_an_option_says_its_default(options: Options) -> None:
    defaults = {name: default for name, action in options.items() if (default := default_of(name, action)) is not None}
    assert len(defaults) > 50
    silent = [name for name, text in defaults.items() if f"The default is {text}" not in help_of(options[name])]
    assert silent == []


def test_the_value_of_an_option_has_a_name_that_says_what_it_is(options: Options) -> None:
    for name, action in options.items():
        if action.nargs == 0:
            continue
        if action.metavar is None:  # then the usage shows the choices, if they are few
            assert action.choices, name
        else:
            assert action.metavar != "VALUE", name
            assert not action.option_strings or action.metavar != action.dest.upper(), name


def test_every_setting_is_described_and_has_an_option_unless_it_is_a_secret(options: Options) -> None:
    assert {name for name in Settings.model_fields if f"serve --{name.replace('_', '-')}" not in options} == SECRETS
    for name, field in Settings.model_fields.items():
        assert SENTENCE.fullmatch(field.description or ""), name


def test_few_choices_stand_in_the_usage_and_many_in_the_description(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
) -> None:
    for name, parser in commands.choices.items():
        usage = parser.format_usage()
        assert "{" not in usage, name
        words = " ".join(parser.format_help().replace("-\n", "-").split()).replace("- ", "-")
        for action in parser._actions:
            for choice in map(str, action.choices or ()):
                assert choice in words, f"{name} {action.dest}"
    serve = commands.choices["serve"].format_help()
    assert "--device DEVICE" in serve
    assert "--log-level LEVEL" in serve
    assert "--task detect|segment" in commands.choices["predict"].format_help()
