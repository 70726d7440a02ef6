"""The threads that decode images and make answers, and what is to be done when images keep them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from service.errors import DecodersStalledError
from service.process.watched_threads import WatchedThreads

T = TypeVar("T")


class CpuPool(WatchedThreads):
    """Threads for images, one of which may keep its thread for longer than anybody waits for it.

    A decoder cannot be interrupted. An image that has taken a request's whole time is overdue; what waits behind it
    would wait for its own deadline only, so once every thread has such an image, nobody is let in.

    Large images, of which each takes seconds, and large uploads never have all threads, so that others do not wait
    behind them: one is left, if there are two or more.

    Processes could be ended from outside. But each takes 45 MB and 0.8 s to start, and to send it an image of 640 x 480
    pixels takes a fifth of the time of decoding it. So an image's work is bounded instead, in the decoder, and this is
    for what escapes the bound.
    """

    def __init__(
        self, threads: int, overdue_seconds: float, hang_seconds: float | None, on_hang: Callable[[], object]
    ) -> None:
        """Make the pool.

        Args:
            threads: images at once.
            overdue_seconds: that a request has.
            hang_seconds: see `WatchedThreads`.
            on_hang: see there.
        """
        super().__init__("cpu", threads, hang_seconds, on_hang)
        self._overdue_seconds = overdue_seconds
        self._for_large = asyncio.Semaphore(max(1, threads - 1))

    async def run_large(self, work: Callable[[], T]) -> T:
        """Do the work of a large image, see `run`; it waits for others of them first."""
        loop = asyncio.get_running_loop()

        def give_back() -> None:
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(self._for_large.release)

        await self._for_large.acquire()
        # Given back by the thread, which goes on where nobody waits for it any more.
        return await self.run(work, give_back)

    def close(self) -> None:
        """See `WatchedThreads`. Who waits for a turn is given one, one after the other, and so fails as well."""
        super().close()
        self._for_large.release()

    @property
    def overdue(self) -> int:
        """How many threads have an image that is overdue."""
        return self.busy_longer_than(self._overdue_seconds)

    def check(self) -> None:
        """Raise DecodersStalledError if no thread is left for another image."""
        if self.overdue >= self.count:
            raise DecodersStalledError("every thread has been at one image for too long, please try again later")
