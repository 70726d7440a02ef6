"""How many requests are in the house at once; any more are refused before work is done for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import DrainingError, QueueFullError


class Occupancy:
    """Counts who is inside. Only the event loop's thread touches it."""

    def __init__(self) -> None:
        self.taken = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the length of the block."""
        self.taken += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.taken -= 1
            if self.taken == 0:
                self._empty.set()

    async def wait_until_empty(self) -> None:
        """Return when nobody holds a place."""
        await self._empty.wait()


class Admission(Occupancy):
    """An occupancy with an upper bound.

    A request holds a place from the end of its upload until its answer is made, so that decoding, waiting
    images and encoding are bounded by the same number. With room for one batch and the queue behind it, of
    `capacity + k` requests at once exactly k are refused, in whatever order they arrive.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self._closed = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the length of the block.

        Raises:
            QueueFullError: none is free.
            DrainingError: no more are given out.
        """
        self.check()
        with super().place():
            yield

    def check(self) -> None:
        """Raise what `place` would raise, so that a request can be refused before its upload is read."""
        if self._closed:
            raise DrainingError("the service is shutting down")
        if self.taken >= self.capacity:
            raise QueueFullError("the queue is full, please try again later")

    def close(self) -> None:
        """Give out no more places."""
        self._closed = True
