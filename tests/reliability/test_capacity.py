"""What the service can do at most, and that it does seven tenths of it for as long as one likes (rows L1 and L2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest

from service.bench.load import Sample, closed_loop, open_loop
from tests.reliability.conftest import Measured, Scripted
from tests.reliability.under_load import (
    SCRIPT,
    STEADY,
    goodput,
    knee,
    latency_ms,
    photos,
    saturate,
    scaled,
    tally,
    target_of,
    watching,
)
from tests.server_process import ServerProcess, serving

pytestmark = pytest.mark.soak

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
NOISE = 0.9  # two measurements of the same throughput may differ by so much
LEAST_BEYOND = 0.8  # of the best, with more clients than that takes


def closed(server: ServerProcess, clients: int, seconds: float) -> list[Sample]:
    return asyncio.run(closed_loop(target_of(server), photos(), clients=clients, seconds=seconds))


def climb(server: ServerProcess, seconds: float, measured: Measured, name: str) -> None:
    """Measure at each concurrency; throughput rises to a knee and stays there."""
    rates = []
    for clients in CONCURRENCIES:
        with watching(server) as use:
            samples = closed(server, clients, seconds)
        assert tally(samples) == {200: len(samples)}
        begin = min(sample.started for sample in samples)
        rates.append(goodput(samples, begin, begin + seconds))
        p50, p95, p99 = (latency_ms(samples, 200, share) for share in (0.5, 0.95, 0.99))
        text = f"{name}, {clients} clients: {rates[-1]:.1f}/s; p50 {p50:.0f}, p95 {p95:.0f}, p99 {p99:.0f} ms"
        cores = use.cpu_seconds / seconds
        measured("L1", f"{text}; {cores:.2f} cores", clients=clients, per_second=rates[-1], p99_ms=p99, cores=cores)
    best = rates.index(max(rates))
    assert all(later >= NOISE * earlier for earlier, later in pairwise(rates[: best + 1]))
    assert all(rate >= LEAST_BEYOND * rates[best] for rate in rates[best:])


@pytest.mark.row(id="L1")
@pytest.mark.timeout(600)
def test_throughput_rises_to_a_knee_and_stays_there(start: Scripted, measured: Measured) -> None:
    with start(script=SCRIPT) as server:
        climb(server, scaled(30), measured, "scripted engine")


@pytest.mark.row(id="L1")
@pytest.mark.timeout(600)
def test_the_demo_model_s_throughput_rises_to_a_knee_and_stays_there(tmp_path: Path, measured: Measured) -> None:
    start: Callable[..., AbstractContextManager[ServerProcess]] = serving
    with start(None, tmp_path, "--request-timeout-ms", "60000") as server:
        closed(server, 2, scaled(5))  # to warm it up
        climb(server, scaled(10), measured, "demo model")


@pytest.mark.row(id="L2")
@pytest.mark.timeout(900)
def test_seven_tenths_of_the_knee_are_answered_alike_from_the_first_minute_to_the_last(
    start: Scripted, measured: Measured
) -> None:
    with start(script=SCRIPT) as server:
        rate = STEADY * knee(saturate(server, photos()))
        samples = asyncio.run(open_loop(target_of(server), photos(), rate=rate, seconds=scaled(600)))
    begin, minute = min(sample.scheduled for sample in samples), scaled(60)
    first = [sample for sample in samples if sample.scheduled < begin + minute]
    last = [sample for sample in samples if sample.scheduled >= begin + scaled(600) - minute]
    p50, p99 = latency_ms(samples, 200, 0.5), latency_ms(samples, 200, 0.99)
    drift = latency_ms(last, 200, 0.99) / latency_ms(first, 200, 0.99)
    measured(
        "L2",
        f"{len(samples)} at {rate:.1f}/s; p50 {p50:.0f}, p99 {p99:.0f} ms; last minute's p99 {drift:.2f} x first's",
        requests=len(samples),
        p50_ms=p50,
        p99_ms=p99,
        drift=drift,
    )
    assert tally(samples) == {200: len(samples)}
    assert p99 <= 5 * p50
    assert drift <= 1.2
