"""One client's huge images are no other client's trouble, and never the event loop's (row L8)."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import psutil
import pytest
from PIL import Image

from service.bench.load import Request, Sample, closed_loop
from tests.reliability.conftest import PATIENT, Measured, Scripted
from tests.reliability.probe import probe
from tests.reliability.under_load import SCRIPT, latency_ms, photos, scaled, tally, target_of
from tests.server_process import ServerProcess


def huge(side: int, image_format: str) -> Request:
    """A flat picture: few bytes, many pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 30)).save(buffer, format=image_format)
    return Request("/segment", buffer.getvalue(), f"image/{image_format.lower()}")


def thread_seconds(process: psutil.Process) -> tuple[float, float]:
    """CPU seconds used so far by the thread of the event loop, and by all others together."""
    used = {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
    loop = used.pop(process.pid)  # Linux calls the main thread by the process's number
    return loop, sum(used.values())


@pytest.mark.slow
@pytest.mark.row(id="L8")
def test_the_event_loop_computes_nothing_of_an_image(start: Scripted) -> None:
    """Decoding, resizing and encoding of a few images of 16 megapixels is the other threads' work: by their CPU time,
    which does not depend on how busy the machine is."""
    with start(*PATIENT) as server:
        requests = [huge(4_000, "PNG"), huge(4_000, "JPEG")]
        asyncio.run(closed_loop(target_of(server), requests, clients=2, count=2))
        loop, others = thread_seconds(server.process)
        samples = asyncio.run(closed_loop(target_of(server), requests, clients=2, count=6))
        assert tally(samples) == {200: 6}
        loop_after, others_after = thread_seconds(server.process)
    worked, computed = loop_after - loop, others_after - others
    assert computed > 0.5, "this was too little work to tell"
    assert worked < 0.1 * computed


@pytest.mark.soak
@pytest.mark.row(id="L8")
@pytest.mark.timeout(600)
def test_a_client_with_huge_images_slows_the_others_little(start: Scripted, measured: Measured) -> None:
    big = [huge(7_000, "PNG"), huge(7_000, "JPEG")]

    def small(seconds: float) -> list[Sample]:
        return asyncio.run(closed_loop(target_of(server), photos(), clients=8, seconds=seconds))

    seconds = scaled(40)
    with (
        start("--request-timeout-ms", "60000", script=SCRIPT) as server,
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as others,
    ):
        alone = small(scaled(20))
        probing = others.submit(probe, server.port, 50, seconds)
        beside, large = asyncio.run(both(server, big, seconds))
        lags = sorted(probing.result())
        errors = server.errors()
    before, during = latency_ms(alone, 200, 0.99), latency_ms(beside, 200, 0.99)
    lag = lags[int(0.99 * len(lags))]
    measured(
        "L8",
        f"p99 of 8 small clients {during:.0f} ms beside one with {len(large)} images of 49 MP, alone {before:.0f} ms; "
        f"p99 of health, which holds the event loop's lag, {lag:.0f} ms",
        p99_ms=during,
        alone_ms=before,
        lag_ms=lag,
    )
    for samples in (alone, beside, large):
        assert tally(samples) == {200: len(samples)}
    assert during <= 3 * before
    assert lag <= 50
    assert errors == []


async def both(server: ServerProcess, big: list[Request], seconds: float) -> tuple[list[Sample], list[Sample]]:
    """Eight clients with small images, and one with huge ones."""
    target = target_of(server)
    return await asyncio.gather(
        closed_loop(target, photos(), clients=8, seconds=seconds), closed_loop(target, big, clients=1, seconds=seconds)
    )
