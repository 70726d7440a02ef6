"""Starts `detr` as a process, a session and a group of its own: as anybody does, or forked from a process that has
imported everything, because the imports take most of the time of a short run.

Run as a program this file is the process that forks.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

REPOSITORY = Path(__file__).parents[3]


class Started(Protocol):
    """A run that has begun."""

    pid: int  # of the process, and of its group

    def wait(self) -> int:
        """Its exit code, or minus the number of the signal that ended it."""


# Takes the words, a file for what is written to standard error, and the file of a terminal that the run has instead.
Start = Callable[[Sequence[str], Path, str | None], Started]


def start_process(
    environment: Mapping[str, str], words: Sequence[str], errors: Path, terminal: str | None = None
) -> Started:
    """Start `detr` with these words. See `Start`."""
    command = [sys.executable, "-m", "service.cli", *words]
    errors.parent.mkdir(exist_ok=True)
    return subprocess.Popen(
        command, env=environment, cwd=REPOSITORY, preexec_fn=lambda: _settle(str(terminal or errors), bool(terminal))
    )


class Preloaded:
    """The process that forks, of which one run goes at a time.

    Args:
        module: imported, with all that it imports, before the first run.
        environment: of all runs.
    """

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        words = [sys.executable, "-m", "tests.model.training.starting", module]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=REPOSITORY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def start(self, words: Sequence[str], errors: Path, terminal: str | None = None) -> Started:
        """Run `detr` with these words. See `Start`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        errors.parent.mkdir(exist_ok=True)
        self._process.stdin.write(json.dumps([list(words), str(terminal or errors), bool(terminal)]) + "\n")
        self._process.stdin.flush()
        return _Forked(self._process.stdout)


class _Forked:
    def __init__(self, answers: IO[str]) -> None:
        self._answers = answers
        self.pid = int(answers.readline())

    def wait(self) -> int:
        """See Started."""
        return int(self._answers.readline())


def main() -> int:
    """Fork a run for each line of standard input, and tell its number and its end."""
    importlib.import_module(sys.argv[1])
    from service import cli

    for line in sys.stdin:
        words, written_to, is_terminal = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _settle(written_to, is_terminal)
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
            sys.argv[1:] = words
            return cli.main(words)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    return 0


def _settle(written_to: str, is_terminal: bool) -> None:
    """In a new process: leave the session of the old one, and write elsewhere."""
    os.setsid()
    opened = os.open(written_to, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    if is_terminal:
        fcntl.ioctl(opened, termios.TIOCSCTTY, 0)
    nothing = opened if is_terminal else os.open(os.devnull, os.O_RDWR)
    for number, descriptor in enumerate((nothing, nothing, opened)):
        os.dup2(descriptor, number)


if __name__ == "__main__":
    sys.exit(main())
