"""Standard input, output and error of a command: always there, and given up in silence when nobody reads them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

# As shells report them: 128 and the number of the signal that would have ended the process.
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143


def open_standard_streams() -> None:
    """Open standard input, output and error on the null device where the process was started without them.

    Their numbers, 0 to 2, would else go to the first files and sockets that are opened, and whatever a library writes
    on standard error into one of these.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    # Python has none for a descriptor that was closed when it began, and prints to another where it is told to use it.
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


@contextmanager
def ends_with_its_readers() -> Iterator[None]:
    """End the process with exit code 141, and without a word, where output of the block goes to a pipe without readers.

    SIGPIPE would do that too, but also where a socket's peer has gone.
    """
    sys.stdout, sys.stderr = _watched(sys.stdout), _watched(sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class _WatchedStream(io.TextIOWrapper):
    """Raises SystemExit, which no command takes for an error of its own, where OSError would say "Broken pipe"."""

    replaced: TextIO  # it would close the buffer when nobody held it any more

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._give_up()

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._give_up()

    def _give_up(self) -> NoReturn:
        # What is still in the buffer would be written, and fail, once more at the end.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        raise SystemExit(UNREAD)


def _watched(stream: TextIO) -> TextIO:
    if type(stream) is not io.TextIOWrapper:  # somebody put one of their own there
        return stream
    watched = _WatchedStream(
        stream.buffer,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    watched.replaced = stream
    return watched
