"""How `detr predict` is interrupted: by Ctrl-C or SIGTERM, and never while it writes the results of a picture."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from service.process.streams import INTERRUPTED, TERMINATED

# What comes within so many seconds is one wish: `timeout` signals its command and then the whole group.
_TOGETHER_S = 1.0


class Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a process that was interrupted so."""
    return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM, by which containers and batch systems end a process, raises Terminated, as Ctrl-C does its error."""

    def interrupt(*_: object) -> NoReturn:
        raise Terminated

    if not _hears_signals():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def uninterrupted(clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Do all of the block or nothing: Ctrl-C and SIGTERM are heard when it ends.

    Another one a second later raises at once, because the block may wait for a reader that reads no more.
    """
    heard: list[tuple[int, float]] = []
    before = (
        {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if _hears_signals() else {}
    )
    # Without what ends the process at once, or never, as whoever started it wants.
    handlers = {number: handler for number, handler in before.items() if callable(handler)}

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append((number, clock()))
        if heard[-1][1] - heard[0][1] > _TOGETHER_S:
            handlers[signal.Signals(number)](number, frame)

    for number in handlers:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if heard:
        first = signal.Signals(heard[0][0])
        handlers[first](first, None)


def _hears_signals() -> bool:
    """Whether this is the main thread, to which alone signals come."""
    return threading.current_thread() is threading.main_thread()
