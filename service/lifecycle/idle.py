"""What is done when nobody has asked for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class WhenIdle:
    """Calls something, once, whenever nothing has been under way for a while. Only the event loop's thread uses it."""

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        """Make it; nothing is called before something was under way.

        Args:
            seconds: how long is a while.
            call: called on the event loop.
        """
        self._seconds, self._call = seconds, call
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Something is under way for the length of the block."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._timer = asyncio.get_running_loop().call_later(self._seconds, self._call)
