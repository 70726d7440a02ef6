"""How a run is stopped by a signal: at once before the training begins, later when the present step is written down."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from model.data.loading import STOP_SIGNALS

# What comes within so many seconds is one wish: `timeout` signals its command and then the whole group.
TOGETHER_SECONDS = 1.0


class Interrupted(BaseException):
    """The run was asked to stop; like KeyboardInterrupt no error that anybody may take for its own.

    Args:
        number: of the signal.
        where: the message, as far as it is known where the run stopped.
    """

    def __init__(self, number: int, where: str) -> None:
        super().__init__(where)
        self.number = number


class StopRequest:
    """Whether the run was asked to stop.

    A signal raises `Interrupted` where it comes, unless somebody who looks at `number` has said so by `wait`. One that
    comes more than a second after the first raises in any case.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.number: int | None = None  # of the signal that asked
        self._clock = clock
        self._asked_at = 0.0
        self._waits = False
        self.raised = False  # in the middle of something
        self._handlers: dict[int, Any] = {}

    def wait(self) -> None:
        """From now on `number` is looked at wherever the run can be left, so that a first signal need not raise.

        Raises Interrupted where somebody has asked already.
        """
        self._waits = True
        if self.number is not None:
            raise Interrupted(self.number, "stopped")
        if self._handlers:
            self.listen()  # Lightning has put a handler of its own before ours

    def listen(self) -> None:
        """Take the signals, but for those that whoever started this process has it ignore, as `nohup` does."""
        for number in STOP_SIGNALS:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._handlers.setdefault(number, before)
                signal.signal(number, self._hear)

    def restore(self) -> None:
        """Leave signals to whoever had them before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._asked_at = number, self._clock()
            if not self._waits:
                self.raised = True
                raise Interrupted(number, "stopped")
            _say("stopping as soon as the present step is written down; a second signal stops at once")
        elif self._clock() - self._asked_at > TOGETHER_SECONDS:
            self.restore()  # a third is the system's
            self.raised = True
            raise Interrupted(number, "stopped at once")


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Listen to signals for the length of a block, in the main thread; elsewhere they are not ours."""
    stop = StopRequest()
    if threading.current_thread() is threading.main_thread():
        stop.listen()
    try:
        yield stop
    except Exception as error:
        if stop.number is None or not stop.raised:
            raise
        raise Interrupted(stop.number, "stopped at once") from error  # what is left in the middle fails in its own way
    finally:
        stop.restore()


def _say(line: str) -> None:
    """Write to standard error, past Python's stream, which a signal may have found in the middle of a line."""
    try:
        os.write(2, f"\ndetr train: {line}\n".encode())
    except OSError:  # the terminal has gone
        return
