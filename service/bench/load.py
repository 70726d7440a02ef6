"""Load on a server, in two ways, as a list of what happened to every request.

In a closed loop each of N clients sends its next request when it has the answer to the last, so a slow server is asked
less: this finds what a server can do. In an open loop requests are due at a constant rate, whether or not earlier ones
are answered, and latency counts from the moment a request was due: this is what users of a busy server see, and what
a closed loop hides (coordinated omission).

Whatever happens to a request is a sample; nothing is raised.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from service.bench.connection import BenchConnection, BenchTarget, Request

__all__ = ["BenchTarget", "Request", "Sample", "closed_loop", "open_loop"]

# An idle connection is not used again after this, because the server may be closing it (its own default is 5 s).
_MAX_IDLE_S = 2.0
# Before a client of a closed loop tries again after it got no answer at all.
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened to one request. Times are seconds of `time.monotonic()`."""

    request: int  # which one was sent, as a position in the list given to the loop
    scheduled: float  # when it was due; in a closed loop, when its client was free
    started: float
    ended: float
    status: int  # HTTP status, 0 if there was no answer
    error: str  # why there was none: "timeout", or the name of the connection's error; else empty
    head: bytes = field(repr=False)  # status line and headers of the answer
    body: bytes | None = field(repr=False)  # of the answer, if it was asked for

    @property
    def latency(self) -> float:
        """Seconds from the moment the request was due."""
        return self.ended - self.scheduled

    def header(self, name: str) -> str | None:
        """A header of the answer."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name.lower():
                return value.decode("latin-1").strip()
        return None

    def stages(self) -> dict[str, float]:
        """The answer's Server-Timing: milliseconds by stage."""
        entries = (entry.strip().partition(";dur=") for entry in (self.header("server-timing") or "").split(","))
        return {name: float(duration) for name, _, duration in entries if duration}


async def closed_loop(
    target: BenchTarget,
    requests: Sequence[Request],
    *,
    clients: int,
    seconds: float | None = None,
    count: int | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109  # it is a request's, and is told as a sample
    keep_bodies: bool = False,
    seed: int = 0,
) -> list[Sample]:
    """Keep `clients` requests in flight, for so many seconds or requests, whichever is over first.

    Args:
        target: the server.
        requests: what is sent, again and again, each as often as the others, in an order drawn from the seed.
        clients: requests in flight, each with a connection of its own.
        seconds: after which no request begins; those in flight are waited for.
        count: of requests.
        timeout: seconds for one request, connecting included.
        keep_bodies: keep the answers' bodies in the samples.
        seed: of the order.

    Returns:
        Samples in order of their end.
    """
    if seconds is None and count is None:
        raise ValueError("a closed loop needs seconds or a count")
    sender = _Sender(target, requests, timeout, keep_bodies, seed)
    end = time.monotonic() + seconds if seconds is not None else float("inf")
    numbers = iter(range(count)) if count is not None else itertools.count()

    async def client() -> None:
        while (due := time.monotonic()) < end and next(numbers, None) is not None:
            if not await sender.send(due):
                await asyncio.sleep(_PAUSE_S)

    await sender.run(client() for _ in range(clients))
    return sender.samples


async def open_loop(
    target: BenchTarget,
    requests: Sequence[Request],
    *,
    rate: float,
    seconds: float,
    timeout: float = 60.0,  # noqa: ASYNC109  # it is a request's, and is told as a sample
    keep_bodies: bool = False,
    seed: int = 0,
) -> list[Sample]:
    """Send `rate` requests a second at equal intervals for so many seconds, and wait for all answers.

    Requests that are late, because this process was, are sent at once, and their latency counts from when they were
    due. There are as many connections as requests in flight, at most `rate * timeout`.

    Args:
        target: as for `closed_loop`, like the rest.
        requests: what is sent.
        rate: requests a second.
        seconds: for which requests are due.
        timeout: seconds for one request, from when it starts.
        keep_bodies: keep the answers' bodies in the samples.
        seed: of the order.

    Returns:
        Samples in order of their end.
    """
    sender = _Sender(target, requests, timeout, keep_bodies, seed)
    begin = time.monotonic()
    sending: set[asyncio.Task[bool]] = set()

    async def schedule() -> None:
        for number in range(round(rate * seconds)):
            due = begin + number / rate
            if (left := due - time.monotonic()) > 0:
                await asyncio.sleep(left)
            task = asyncio.create_task(sender.send(due))
            sending.add(task)
            task.add_done_callback(sending.discard)
        await asyncio.gather(*sending)

    await sender.run([schedule()])
    return sender.samples


class _Sender:
    """What both loops share: the requests, the connections that are idle, and the samples."""

    def __init__(
        self, target: BenchTarget, requests: Sequence[Request], timeout: float, keep_bodies: bool, seed: int
    ) -> None:
        if not requests:
            raise ValueError("a load needs at least one request")
        self.samples: list[Sample] = []
        self._target = target
        self._wires = [request.wire(target) for request in requests]
        self._order = _shuffled_rounds(len(requests), seed)
        self._timeout = timeout
        self._keep_bodies = keep_bodies
        self._bodies: dict[bytes, bytes] = {}  # equal answers are kept once
        self._idle: list[tuple[float, BenchConnection]] = []  # since when; the last used is used next

    async def run(self, work: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Await all work, and close the connections however it ends."""
        try:
            async with asyncio.TaskGroup() as group:
                for coroutine in work:
                    group.create_task(coroutine)
        finally:
            for _, connection in self._idle:
                connection.close()

    async def send(self, due: float) -> bool:
        """Send the next request and note what happened; False if there was no answer."""
        request = next(self._order)
        started = time.monotonic()
        status, error, head, body = 0, "", b"", None
        try:
            async with asyncio.timeout(self._timeout):
                connection = await self._connect()
                reply = await connection.exchange(self._wires[request])
        except TimeoutError:
            error = "timeout"
        except OSError as failure:
            error = type(failure).__name__
        else:
            status, head = reply.status, reply.head
            if self._keep_bodies:
                body = self._bodies.setdefault(reply.body, reply.body)
        ended = time.monotonic()
        self.samples.append(Sample(request, due, started, ended, status, error, head, body))
        if not error and connection.is_open:
            self._idle.append((ended, connection))
        return not error

    async def _connect(self) -> BenchConnection:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_open and time.monotonic() - since < _MAX_IDLE_S:
                return connection
            connection.close()
        return await BenchConnection.open(self._target)


def _shuffled_rounds(count: int, seed: int) -> Iterator[int]:
    """0 to count - 1 in one random order after another, without end."""
    draw = random.Random(seed)
    numbers = list(range(count))
    while True:
        draw.shuffle(numbers)
        yield from numbers
