"""Time that stands still while the process does, by which all is measured and timed out that the service does.

A process can be stopped, and go on an hour later: by SIGSTOP, `docker pause`, or a host that freezes its guests. To
the system's clocks that hour has passed. By them every batch, decoder and upload that was under way would then be an
hour late, which is no fault of theirs, and the service would end itself. So the clock of its event loop leaves such
hours out. All timers are the loop's; threads that measure something are given the clock.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple, TypeVar

T = TypeVar("T")
TimeSource = Callable[[], float]

# A loop that has nothing to do looks at its clock this often, so that a gap says something.
_BEAT_SECONDS = 0.1
_MARK_SECONDS = 0.05
# No gap below it counts: whoever computes beside others has to wait for a while, and that is no pause.
_LEAST_PAUSE_SECONDS = 1.0


class _Mark(NamedTuple):
    """The last look at the clocks."""

    at: float  # seconds, by the system's clock
    cpu: float  # seconds that all threads have computed by then
    paused: float  # seconds that are left out by then


class RunningClock:
    """A clock, in seconds, that stands still while the process is stopped; any thread may ask it.

    Somebody asks ten times a second. Where nobody has for a second or more, the process was stopped, or one of its
    threads kept Python's lock. In that case it computed, so the processor time of all threads does not count as a
    pause: what is left of the gap is time in which nothing ran.
    """

    def __init__(self, now: TimeSource = time.monotonic, cpu: TimeSource = time.process_time) -> None:
        """Run from now on.

        Args:
            now: the system's clock, which never goes back.
            cpu: processor time of the whole process.
        """
        self._now, self._cpu = now, cpu
        self._lock = threading.Lock()
        self._mark = _Mark(now(), cpu(), 0.0)

    def __call__(self) -> float:
        """Seconds; never less than before."""
        mark = self._mark  # before the time, or a pause between the two would pass for time that ran
        now = self._now()
        if now - mark.at < _MARK_SECONDS:
            return now - mark.paused
        return self._look()

    def _look(self) -> float:
        with self._lock:
            now, cpu = self._now(), self._cpu()
            at, cpu_before, paused = self._mark
            if now - at >= _LEAST_PAUSE_SECONDS:
                # Up to that long after a mark its time has gone on.
                paused += max(0.0, now - at - max(cpu - cpu_before, _MARK_SECONDS))
            self._mark = _Mark(now, cpu, paused)
            return now - paused


class RunningLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock, and with it every timer, stands still while the process is stopped."""

    def __init__(self) -> None:
        self._clock = RunningClock()
        super().__init__(_BeatingSelector())

    def time(self) -> float:
        """The loop's time in seconds; any thread may ask for it."""
        return self._clock()


class _BeatingSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait no longer than for a beat. To come back with nothing is allowed: the loop then waits again."""
        return super().select(_BEAT_SECONDS if timeout is None else min(timeout, _BEAT_SECONDS))


def result_within(future: Future[T], seconds: float) -> T:
    """What a thread makes in so many seconds in which the process runs. Raises TimeoutError, or what it raises."""
    clock = RunningClock()
    deadline = clock() + seconds
    while not future.done() and clock() < deadline:
        with suppress(TimeoutError):
            return future.result(_BEAT_SECONDS)
    return future.result(0)
