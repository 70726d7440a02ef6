"""What a server keeps: memory, file descriptors and threads, before and after a load, and the verdict on them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from service.process.memory import GIVE_BACK_AFTER_SECONDS
from tests.processes import until
from tests.server_process import ServerProcess

MOST_GROWTH = 20e6  # bytes of memory, whatever the load
MOST_SLOPE = 200  # bytes a request, over the later half of a load
SLOPE_FROM = 20_000  # requests; in a shorter load, a slope drowns in the noise of a few MB
_STEADY, _LOOK_S = 100_000, 0.1  # bytes, within which memory stays from one look to those after it
_STEADY_LOOKS = round((GIVE_BACK_AFTER_SECONDS + 1) / _LOOK_S)


@dataclass(frozen=True)
class Usage:
    """What a server has of the machine when nobody asks it."""

    rss: int  # bytes
    fds: int
    threads: int


def usage_at_rest(server: ServerProcess) -> Usage:
    """Wait until nobody is connected and memory stands still, for longer than the server waits to give it back."""
    looks: list[int] = []

    def stands_still() -> bool:
        looks.append(server.rss())
        time.sleep(_LOOK_S)
        last = looks[-_STEADY_LOOKS:]
        return len(last) == _STEADY_LOOKS and max(last) - min(last) < _STEADY

    until(lambda: not server.process.net_connections(kind="tcp")[1:])  # all but the listening one
    until(stands_still)
    return Usage(server.rss(), server.fds(), server.threads())


@dataclass(frozen=True)
class Growth:
    """What changed by a load."""

    before: Usage
    after: Usage
    requests: int
    slope: float  # bytes a request, over the later half

    @property
    def megabytes(self) -> float:
        """By which memory grew."""
        return (self.after.rss - self.before.rss) / 1e6

    def faults(self, most: float = MOST_GROWTH) -> list[str]:
        """Which of the promises are broken: memory, descriptors, threads."""
        found = []
        if self.after.rss - self.before.rss > most:
            found.append(f"memory grew by {self.megabytes:.1f} MB")
        if self.requests >= SLOPE_FROM and self.slope > MOST_SLOPE:
            found.append(f"memory still grew by {self.slope:.0f} bytes a request")
        if abs(self.after.fds - self.before.fds) > 2:
            found.append(f"{self.before.fds} file descriptors became {self.after.fds}")
        if self.after.threads != self.before.threads:
            found.append(f"{self.before.threads} threads became {self.after.threads}")
        return found


def growth_of(server: ServerProcess, load: Callable[[], Awaitable[int]], every_s: float = 0.25) -> Growth:
    """What a load leaves behind on a server that is warm; the load says how many requests it was."""
    before = usage_at_rest(server)
    looks: list[int] = []

    async def look() -> None:
        while True:
            looks.append(server.rss())
            await asyncio.sleep(every_s)

    async def play() -> int:
        looking = asyncio.create_task(look())
        try:
            return await load()
        finally:
            looking.cancel()

    requests = asyncio.run(play())
    return Growth(before, usage_at_rest(server), requests, _slope(looks, requests))


def _slope(looks: list[int], requests: int) -> float:
    """Bytes a request, by least squares over the later half of looks at equal intervals."""
    later = looks[len(looks) // 2 :]
    if len(later) < 2:
        return 0.0
    a_look = float(np.polyfit(np.arange(len(later)), np.array(later, dtype=np.float64), 1)[0])
    return a_look * len(looks) / requests
