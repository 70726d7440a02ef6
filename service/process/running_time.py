"""Time that stands still while the process does, by which all is measured and timed out that the service does.

A process can be stopped, and go on an hour later: by SIGSTOP, `docker pause`, or a host that freezes its guests. To
the system's clocks that hour has passed. By them every batch, decoder and upload that was under way would then be an
hour late, which is no fault of theirs, and the service would end itself. So the clock of its event loop leaves such
hours out. All timers are the loop's; threads that measure something are given the clock.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

if TYPE_CHECKING or sys.platform == "win32" or sys.implementation.name != "cpython":
    from asyncio import SelectorEventLoop as _FastestLoop
else:
    from uvloop import Loop as _FastestLoop

T = TypeVar("T")
TimeSource = Callable[[], float]

# The loop looks at its clock this often, whatever else it does.
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


class RunningLoop(_FastestLoop):
    """An event loop whose clock, and with it every timer, stands still while the process is stopped."""

    def __init__(self) -> None:
        self._clock = RunningClock()
        super().__init__()
        self._beat()

    def time(self) -> float:
        """The loop's time in seconds; any thread may ask for it."""
        return self._clock()

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Like that of any loop, whose `call_at` is made of it."""
        timer = _RunningTimer(self.time() + delay, self.time, super().call_later, partial(callback, *args), context)
        return cast(asyncio.TimerHandle, timer)

    def _beat(self) -> None:
        """Look at the clock, so that a gap says something while the loop has nothing to do."""
        self._clock()
        super().call_later(_BEAT_SECONDS, self._beat)


class _RunningTimer:
    """What asyncio uses of a `TimerHandle`: a timer of the system's time, which is set anew where it came too early."""

    __slots__ = ("_callback", "_context", "_inner", "_set", "_time", "_when")

    def __init__(
        self,
        when: float,
        time: TimeSource,
        set_timer: Callable[..., asyncio.TimerHandle],
        callback: Callable[[], object],
        context: Context | None,
    ) -> None:
        self._when, self._time, self._set, self._callback, self._context = when, time, set_timer, callback, context
        self._inner = self._set(when - time(), self._come, context=context)

    def cancel(self) -> None:
        self._inner.cancel()

    def cancelled(self) -> bool:
        return self._inner.cancelled()

    def when(self) -> float:
        return self._when

    def _come(self) -> None:
        left = self._when - self._time()
        if left > _LEAST_PAUSE_SECONDS / 2:
            self._inner = self._set(left, self._come, context=self._context)
        else:
            self._callback()


def result_within(future: Future[T], seconds: float) -> T:
    """What a thread makes in so many seconds in which the process runs. Raises TimeoutError, or what it raises."""
    clock = RunningClock()
    deadline = clock() + seconds
    while not future.done() and clock() < deadline:
        with suppress(TimeoutError):
            return future.result(_BEAT_SECONDS)
    return future.result(0)
