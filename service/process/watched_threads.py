"""Threads for work that may hang, such as a decoder's or an engine's: nobody can interrupt it, but it is watched."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from service.errors import DrainingError
from service.process.workers import Work, Workers

T = TypeVar("T")

# Exit code of a process one of whose threads hangs, or whose engine cannot be opened again, which a new process cures.
ENGINE_LOST = 4
# For threads that have nothing left to do, to notice.
LAST_PATIENCE_S = 0.25


class WatchedThreads:
    """Does work for the event loop, and says how long each thread has been at its own.

    Used on the event loop, but any thread may ask how busy they are.
    """

    def __init__(self, name: str, count: int, hang_seconds: float | None, on_hang: Callable[[], object]) -> None:
        """Start no thread before there is work for it.

        Args:
            name: of the threads.
            count: threads, at most.
            hang_seconds: after which work that has not ended counts as hung; None is never.
            on_hang: called on the event loop when some does, once.
        """
        self.count = count
        self._hang_seconds = hang_seconds
        self._on_hang = on_hang
        self._began: dict[int, float] = {}  # when each busy thread began with what it does now
        self._clock = time.monotonic  # the event loop's, as soon as there is one
        self._watch: asyncio.TimerHandle | None = None
        self._awaited: set[asyncio.Future[Any]] = set()
        self._is_closed = False
        self._workers = Workers(name, count)

    def busy_seconds(self) -> float:
        """How long the one that has been busy longest has been at its present work; 0 when all are free."""
        return max(self._all_busy_seconds(), default=0.0)

    def busy_longer_than(self, seconds: float) -> int:
        """How many have been at their present work for longer than this."""
        return sum(busy > seconds for busy in self._all_busy_seconds())

    async def run(self, work: Callable[[], T], on_end: Callable[[], object] | None = None) -> T:
        """Do some work in one of them. To cancel this is to leave the work undone, unless it has begun.

        Args:
            work: what is done.
            on_end: called in any thread when the work has ended or will never begin, whether or not somebody waits.

        Raises:
            DrainingError: they are closed, or were closed before the end of the work.
            MemoryError: another thread is needed, and cannot be started.
            Exception: whatever the work raises; what would end the event loop comes as a RuntimeError.
        """
        awaited = _Awaited(partial(self._do, work), on_end)
        del work  # which is to be let go of when it has ended, or will not begin
        self._hand_in(awaited)
        try:
            return await self._until_closed(awaited.waiter)
        except asyncio.CancelledError:
            awaited.drop()
            raise
        finally:
            del awaited  # or what the work raises would hold itself, and all that the work had

    def begin(self, work: Callable[[], T]) -> Future[T]:
        """Do some work as soon as a thread is free, whose result is to be had by `result`. Until the work begins, the
        future can be cancelled. Arguments and exceptions are those of `run`, but for what the work raises.
        """
        begun = _Begun(partial(self._do, work))
        self._hand_in(begun)
        return begun.future

    async def result(self, begun: Future[T]) -> T:
        """The result of what `begin` returned; see `run` for what this raises, and what it is to cancel it."""
        working = asyncio.wrap_future(begun)
        del begun  # for the same reason
        try:
            return await self._until_closed(working)
        finally:
            del working

    def close(self) -> None:
        """Do no more work, and fail whoever waits. A thread that hangs cannot be ended from here."""
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        self._workers.close()
        for working in self._awaited:
            working.cancel()

    def _hand_in(self, work: Work) -> None:
        """Have work done, or drop it and raise DrainingError or MemoryError, see `run`."""
        try:
            if self._is_closed:
                raise DrainingError("the service is shutting down")
            self._watch_them()
            self._workers.put(work)
        except BaseException as error:
            work.drop()
            if isinstance(error, RuntimeError):
                raise MemoryError("no thread can be started") from error
            raise

    async def _until_closed(self, working: asyncio.Future[T]) -> T:
        """Its result. Raises DrainingError if there is none because they were closed."""
        self._awaited.add(working)
        try:
            return await working
        except asyncio.CancelledError:
            if self._is_closed and not _is_current_task_cancelled():
                raise DrainingError("the service shut down before the answer") from None
            raise
        finally:
            self._awaited.discard(working)
            del working

    def _do(self, work: Callable[[], T]) -> T:
        thread = threading.get_ident()
        self._began[thread] = self._clock()
        try:
            return work()
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):  # which no future takes
                raise
            raise RuntimeError(f"{type(error).__name__} in a thread") from error
        finally:
            del self._began[thread]

    def _all_busy_seconds(self) -> list[float]:
        began = list(self._began.values())  # before the time, or it could be earlier
        now = self._clock()
        return [now - since for since in began]

    def _watch_them(self) -> None:
        """Look after them from the first work on: never more often than work can hang."""
        if self._watch is None:
            self._clock = asyncio.get_running_loop().time
            if self._hang_seconds is not None:
                self._look_again(self._hang_seconds)

    def _look_again(self, seconds: float) -> None:
        self._watch = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        assert self._hang_seconds is not None
        left = self._hang_seconds - self.busy_seconds()
        if left > 0:
            self._look_again(left)
        else:
            self._on_hang()


class _Awaited(Generic[T]):
    """Work for which a coroutine waits. To drop it is to call `on_end` where it has not begun and was not dropped."""

    def __init__(self, work: Callable[[], T], on_end: Callable[[], object] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self.waiter: asyncio.Future[T] = self._loop.create_future()
        self._work, self._on_end = work, on_end
        self._is_open = [True]  # whoever takes this out does the work or drops it

    def do(self) -> None:
        """See Work."""
        if self._take():
            result, error = _outcome(self._work)
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                self._loop.call_soon_threadsafe(_settle, self.waiter, result, error)
            self._end()
            del self, result, error  # an error holds the frames that it came through, and those hold who called them

    def drop(self) -> None:
        """See Work."""
        if self._take():
            self._end()

    def _take(self) -> bool:
        with suppress(IndexError):
            return self._is_open.pop()
        return False

    def _end(self) -> None:
        del self._work  # the queue may hold this for as long as all threads are busy
        if self._on_end is not None:
            self._on_end()


class _Begun(Generic[T]):
    """Work whose end any thread may wait for."""

    def __init__(self, work: Callable[[], T]) -> None:
        self.future: Future[T] = Future()
        self._work = work

    def do(self) -> None:
        """See Work."""
        if self.future.set_running_or_notify_cancel():
            result, error = _outcome(self._work)
            if error is None:
                self.future.set_result(result)  # type: ignore[arg-type]  # without an error it is one
            else:
                self.future.set_exception(error)
            del self, result, error  # for the same reason

    def drop(self) -> None:
        """See Work."""
        self.future.cancel()


def _outcome(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What work returns or raises."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def _settle(waiter: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if waiter.done():  # who waited has gone
        return
    if error is None:
        waiter.set_result(result)
    else:
        waiter.set_exception(error)


def threads_left(patience_seconds: float = LAST_PATIENCE_S) -> list[str]:
    """Names of the threads that Python would wait for at its end, and that do not end by themselves in this time.

    Whatever they do, in an engine, a decoder or a loader, it is for nobody any more.
    """
    deadline = time.monotonic() + patience_seconds
    current = threading.current_thread()
    left = [thread for thread in threading.enumerate() if not thread.daemon and thread is not current]
    for thread in left:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in left if thread.is_alive()]


def _is_current_task_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
