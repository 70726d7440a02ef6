"""A command whose output nobody reads any more ends as a shell expects, and without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.process.streams import UNREAD

REPOSITORY = Path(__file__).parents[3]

# The streams as a command has them, with the words of one that takes every OSError for its own.
COMMAND = """
import sys
from service.process.streams import ends_with_its_readers
with ends_with_its_readers():
    try:
        for _ in range(int(sys.argv[2])):
            print("x" * 999, file=getattr(sys, sys.argv[1]))
        sys.exit(7)
    except OSError as error:
        sys.exit(f"a failure: {error}")
"""


def unread(stream: str, *words: str) -> tuple[int, bytes]:
    """The exit code of a command whose pipe nobody reads, and what it writes to its other stream."""
    reader, writer = os.pipe()
    os.close(reader)
    other = "stderr" if stream == "stdout" else "stdout"
    try:
        done = subprocess.run(
            [sys.executable, *words],
            **{stream: writer, other: subprocess.PIPE},  # type: ignore[call-overload]
            cwd=REPOSITORY,
            timeout=120,
            check=False,
        )
    finally:
        os.close(writer)
    return done.returncode, getattr(done, other)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("lines", ["1", "1000"], ids=["which it notices at its end", "which it notices at once"])
def test_it_ends_in_silence_where_a_pipe_is_not_read(stream: str, lines: str) -> None:
    assert unread(stream, "-c", COMMAND, stream, lines) == (UNREAD, b"")


@pytest.mark.parametrize("words", [["--help"], ["serve", "--help"], ["models"], ["evaluate", "--help"]])
def test_every_command_does(words: list[str]) -> None:
    assert unread("stdout", "-m", "service.cli", *words) == (UNREAD, b"")


def test_what_is_read_is_whole_and_keeps_its_exit_code() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "stdout", "50"], cwd=REPOSITORY, capture_output=True, timeout=120, check=False
    )
    assert (done.returncode, len(done.stdout), done.stderr) == (7, 50_000, b"")
