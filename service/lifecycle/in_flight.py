"""What is in flight: one counter, for every level at which somebody has to know how much has begun and not ended.

- HTTP requests, of a port and of all ports: the gate holds the port's against a bound, a gauge shows them all.
- Uploads, from their headers until their answer is made: a drain ends those that still arrive, and when there are none
  for a while memory is given back.
- Admitted uploads, of all models and of one: admission holds them against its capacity, a drain waits for all of them,
  and a model that was replaced for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

M = TypeVar("M")


class InFlight(Generic[M]):
    """Knows what is in flight at one level. Changed on the event loop only; any thread may read the count."""

    def __init__(self, within: InFlight[M] | None = None) -> None:
        """Make a level, with nothing in flight; what is in flight here is so `within` a wider level as well."""
        self._within = within
        self._members: set[M] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._idle_call: Callable[[], object] | None = None
        self._idle_seconds = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """How many are in flight."""
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        """Each of them, as they are now."""
        return iter(tuple(self._members))

    @contextmanager
    def member(self, member: M) -> Iterator[None]:
        """Have something in flight for the length of the block."""
        self._add(member)
        try:
            yield
        finally:
            self._remove(member)

    async def wait_until_empty(self) -> None:
        """Return when nothing is in flight."""
        await self._empty.wait()

    def when_idle(self, seconds: float, call: Callable[[], object]) -> None:
        """Have something called, on the event loop, each time that nothing has been in flight for so many seconds.

        Nothing is called before there was something in flight.
        """
        self._idle_seconds, self._idle_call = seconds, call

    def _add(self, member: M) -> None:
        if self._within is not None:
            self._within._add(member)
        self._members.add(member)
        self._empty.clear()
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _remove(self, member: M) -> None:
        self._members.remove(member)
        if not self._members:
            self._empty.set()
            if self._idle_call is not None:
                self._idle_timer = asyncio.get_running_loop().call_later(self._idle_seconds, self._idle_call)
        if self._within is not None:
            self._within._remove(member)
