"""A server under load: what it can do at most, what it answers beyond that, and what it has of the machine meanwhile.

The engine of these tests takes a set time for a batch, so that capacity is the engine's and does not depend on the
machine, as long as that is fast enough for everything around the engine. Client and server share its cores.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from service.bench.load import BenchTarget, Request, Sample, closed_loop, open_loop
from service.bench.pictures import synthetic_jpeg
from tests.reliability.scripted_engine import picture
from tests.server_process import ServerProcess

# Batches of 1 take 110 ms and of 8, the most by default, 320 ms: 25 images a second.
SCRIPT = {"delay_ms": 80, "delay_per_image_ms": 30}
CAPACITY = 8 / 0.32  # images a second, if nothing but the engine took time
PLACES = 8 + 64  # uploads in flight that are admitted, by default
STEADY = 0.7  # of what the server can do
CLIENTS = 32  # of a closed loop, so that the engine always has a full batch before it
HEALTH = [Request(path, method="GET") for path in ("/health/live", "/health/ready")]
METRICS = [Request("/metrics", method="GET")]
_BUDGET = "detr_memory_budget_bytes"


def scaled(amount: float) -> float:
    """Seconds or requests of a long test: as promised, or a share of that for a trial (`DETR_SOAK_SCALE=0.1`)."""
    return amount * float(os.environ.get("DETR_SOAK_SCALE", "1"))


@cache
def photos(count: int = 16) -> list[Request]:
    """Requests with different JPEGs of 640 x 480, about 100 KB each, as a camera's are."""
    return [Request("/detect", synthetic_jpeg((480, 640), seed)) for seed in range(count)]


@cache
def small_pictures(count: int = 64) -> list[Request]:
    """Requests with pictures that cost next to nothing; the engine answers each with its own identity."""
    return [Request("/detect", picture(identity * 0x010307), "image/png") for identity in range(count)]


def target_of(server: ServerProcess) -> BenchTarget:
    """Where the load goes."""
    return BenchTarget("127.0.0.1", server.port)


def saturate(server: ServerProcess, requests: Sequence[Request], seconds: float = 12) -> list[Sample]:
    """As much as the server can do, and no more: all answered."""
    samples = asyncio.run(closed_loop(target_of(server), requests, clients=CLIENTS, seconds=seconds))
    assert tally(samples) == {200: len(samples)}
    return samples


def knee(saturated: Sequence[Sample]) -> float:
    """Answers a second that a saturated server gave, once it had got going."""
    begin, end = min(sample.started for sample in saturated), max(sample.started for sample in saturated)
    return goodput(saturated, begin + (end - begin) / 6, end)


def goodput(samples: Sequence[Sample], begin: float, end: float) -> float:
    """Successful answers a second between two moments (`time.monotonic()`)."""
    return sum(sample.status == 200 and begin <= sample.ended < end for sample in samples) / (end - begin)


def tally(samples: Sequence[Sample]) -> Counter[int | str]:
    """How many had which status; where there was no answer, which error."""
    return Counter(sample.error or sample.status for sample in samples)


def latency_ms(samples: Sequence[Sample], status: int, share: float) -> float:
    """The latency, counted from when a request was due, that this share of answers with a status stayed within."""
    latencies = sorted(sample.latency for sample in samples if sample.status == status)
    assert latencies, f"nothing was answered with {status}"
    return 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]


def check_only_200_or_503(samples: Sequence[Sample]) -> None:
    """Every request was answered, and every refusal says when to try again."""
    assert set(tally(samples)) <= {200, 503}, tally(samples)
    for sample in samples:
        if sample.status == 503:
            assert re.fullmatch(r"[1-9]\d*", sample.header("retry-after") or ""), sample.head


@dataclass(frozen=True)
class Overload:
    """A load at a constant rate, with health and metrics asked meanwhile."""

    begin: float  # seconds of `time.monotonic()`
    seconds: float
    load: list[Sample]
    health: list[Sample]
    scrapes: list[Sample]

    @property
    def goodput(self) -> float:
        """Successful answers a second, while the load lasted."""
        return goodput(self.load, self.begin, self.begin + self.seconds)


def overload(
    server: ServerProcess,
    requests: Sequence[Request],
    *,
    rate: float,
    seconds: float,
    health_rate: float = 5,
    scrape_rate: float = 10,
) -> Overload:
    """Send requests at a constant rate; rates are a second, and 0 leaves health or metrics alone."""

    async def at_once() -> Overload:
        begin, target = time.monotonic(), target_of(server)

        async def asking(asked: Sequence[Request], a_second: float) -> list[Sample]:
            # A body is kept only of metrics, to be read later.
            return await open_loop(target, asked, rate=a_second, seconds=seconds, keep_bodies=asked is METRICS)

        load, health, scrapes = await asyncio.gather(
            open_loop(target, requests, rate=rate, seconds=seconds, keep_bodies=True),
            asking(HEALTH, health_rate),
            asking(METRICS, scrape_rate),
        )
        return Overload(begin, seconds, load, health, scrapes)

    return asyncio.run(at_once())


def quiet_answers(server: ServerProcess, requests: Sequence[Request]) -> list[Sample]:
    """Each request's answer when it is the only one, in order."""
    target = target_of(server)

    async def one_after_the_other() -> list[Sample]:
        return [(await closed_loop(target, [request], clients=1, count=1, keep_bodies=True))[0] for request in requests]

    samples = asyncio.run(one_after_the_other())
    assert tally(samples) == {200: len(samples)}
    return samples


def check_answers(samples: Sequence[Sample], quiet: Sequence[Sample]) -> None:
    """Every success is, byte for byte, the answer that its picture gets when nobody else asks."""
    wrong = [sample for sample in samples if sample.status == 200 and sample.body != quiet[sample.request].body]
    assert not wrong, f"{len(wrong)} answers are not those of a quiet server, the first: {wrong[0].body!r}"


def memory_budget(server: ServerProcess) -> int:
    """Bytes that the server said at its start it would stay within."""
    return int(server.samples()[_BUDGET])


@dataclass
class Peak:
    """The most memory that was seen in use."""

    rss: int = 0  # bytes
    cpu_seconds: float = 0  # used by the process meanwhile


@contextmanager
def watching(server: ServerProcess, interval_s: float = 0.02) -> Iterator[Peak]:
    """Look at the server's memory again and again for the length of the block."""
    peak, process, over = Peak(rss=server.rss()), server.process, threading.Event()

    def watch() -> None:
        while not over.wait(interval_s):
            peak.rss = max(peak.rss, process.memory_info().rss)

    thread = threading.Thread(target=watch, name="watch")
    before = _cpu_seconds(process)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.cpu_seconds = _cpu_seconds(process) - before


def _cpu_seconds(process: Any) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
