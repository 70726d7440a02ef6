"""What a client is given on its connection, and the clocks that hold it to that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class ConnectionLimits:
    """What a client is given on its connection; times in seconds."""

    max_header_bytes: int
    header_timeout: float  # from the first byte of a request, or the connection's begin, to the end of the headers
    body_timeout: float  # for the rest of an upload that is answered already
    write_timeout: float  # for an answer to be read, once it does not fit into buffers


class Clock:
    """A deadline that can be set and lifted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Call back after so long, unless a deadline is set already."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, self._callback)

    def stop(self) -> None:
        """Lift the deadline, if one is set or has passed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
