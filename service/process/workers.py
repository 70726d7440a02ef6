"""Threads that stay with their work while there is some, and are free for Python to end when there is none."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol

logger = logging.getLogger(__name__)

# For which a thread waits for more work before it goes; Python's end waits for it so long at most.
_STAYING_S = 0.05


class Work(Protocol):
    """What a thread does, by functions that handle what is raised in them."""

    def do(self) -> None:
        """Do it, in a thread."""

    def drop(self) -> None:
        """Leave it undone; called in place of the other."""


class Workers:
    """A ThreadPoolExecutor to whose threads work is handed by a queue alone: the executor itself takes 20 microseconds
    of processor time and of Python's lock for each piece, which at several pieces an image is 3 % of a small picture.

    It starts threads and ends them, as a pool that Python knows. What is submitted there is to stay and do what comes.
    """

    def __init__(self, name: str, count: int) -> None:
        """Start no thread before there is work for it, and so many at most."""
        self._name, self._count = name, count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._staying = 0  # threads
        self._spare = 0  # threads that wait for work, less the work that waits for a thread

    def put(self, work: Work) -> None:
        """Have some work done as soon as a thread is free. One thread alone calls this, and none after `close`.

        Raises RuntimeError if another thread is needed and cannot be started, and the work is left undone.
        """
        with self._lock:
            self._spare -= 1
            is_short = self._spare < 0 and self._staying < self._count
            self._staying += is_short
        if is_short:
            self._have_another_stay()
        self._work.put(work)

    def close(self) -> None:
        """Drop what has not begun, and begin nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with suppress(Empty):
            while True:
                if (work := self._work.get_nowait()) is not None:
                    work.drop()
        for _ in range(self._count):
            self._work.put(None)

    def _have_another_stay(self) -> None:
        is_wanted = [True]
        try:
            self._threads.submit(self._stay, is_wanted)
        except BaseException:  # MemoryError comes, too
            is_wanted.clear()
            with self._lock:
                self._spare += 1
                self._staying -= 1
            # The executor keeps what it could not begin, and would then count a thread as idle that is not. What it has
            # begun, or is about to, goes on.
            self._threads.shutdown(wait=False)
            self._threads = ThreadPoolExecutor(self._count, thread_name_prefix=self._name)
            raise

    def _stay(self, is_wanted: list[bool]) -> None:
        if not is_wanted:
            return
        while True:
            with self._lock:
                self._spare += 1
            if (work := self._next()) is None:
                return
            try:
                work.do()
            except BaseException:  # for want of memory; a thread less would be for good
                logger.exception("a thread could not tell what became of its work")
            del work  # and all that it holds, before the next comes

    def _next(self) -> Work | None:
        """The next piece of work; None when it is time to go."""
        while True:
            try:
                return self._work.get(timeout=_STAYING_S)
            except Empty:
                with self._lock:
                    if self._spare > 0:  # without this thread there are still enough for all that waits
                        self._spare -= 1
                        self._staying -= 1
                        return None
