"""Who is let in: every reason why not is told before a body is read, and once more when it has arrived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.service.conftest import App, Serving, check_error, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


def starts(app: App) -> None:
    app.service.admission.current = None


def drains(app: App) -> None:
    app.service.begin_drain()


def opens_its_engine_again(app: App) -> None:
    app.service.admission.pipeline().batcher.engines.runners["fake"]._reopening.is_under_way = True


def has_lost_its_engine(app: App) -> None:
    app.service.admission.pipeline().batcher.engines.runners["fake"].is_lost = True


def is_stalled(app: App) -> None:
    app.service.admission.pipeline().batcher.engines.runners["fake"]._stall_seconds = -1


def has_no_decoder_left(app: App) -> None:
    app.service._cpu.count = app.service._cpu.overdue


def is_full(app: App) -> None:
    app.service.admission.capacity = 0


REASONS: dict[str, tuple[Callable[[App], None], str]] = {
    "starts": (starts, "starting"),
    "drains": (drains, "draining"),
    "opens its engine again": (opens_its_engine_again, "engine_restarting"),
    "has lost its engine": (has_lost_its_engine, "engine_restarting"),
    "is stalled": (is_stalled, "engine_stalled"),
    "has no decoder left": (has_no_decoder_left, "decoders_stalled"),
    "is full": (is_full, "queue_full"),
}


@pytest.mark.parametrize("why", REASONS)
async def test_an_upload_that_would_be_refused_is_not_read(serving: Serving, engine: FakeEngine, why: str) -> None:
    happen, code = REASONS[why]

    async def never() -> AsyncIterator[bytes]:
        yield b""
        raise AssertionError("the body was read")

    async with serving(engine) as app:
        current = app.service.admission.current
        happen(app)
        answer = await app.detect(never())
        check_error(answer, 503, code)
        assert answer.headers["retry-after"] == "1"
        is_ready = (await app.client.get("/health/ready")).status_code == 200
        assert is_ready == (why == "is full"), "which the next moment can change"
        app.service.admission.current = current


@pytest.mark.parametrize("why", REASONS)
async def test_what_has_become_of_the_service_during_an_upload_counts_at_its_end(
    serving: Serving, engine: FakeEngine, why: str
) -> None:
    happen, code = REASONS[why]
    async with serving(engine) as app:
        current = app.service.admission.current

        async def body() -> AsyncIterator[bytes]:
            yield red_png(1)
            happen(app)

        check_error(await app.detect(body()), 503, code)
        assert app.service.admission.in_flight.count == 0
        app.service.admission.current = current
    assert engine.seen == []


async def test_an_upload_counts_from_its_end_until_its_answer(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine) as app:
        arrived, more = asyncio.Event(), asyncio.Event()

        async def body() -> Any:
            yield red_png(1)[:50]
            arrived.set()
            await more.wait()
            yield red_png(1)[50:]

        uploading = asyncio.create_task(app.detect(body()))
        await arrived.wait()
        assert (app.service.upload_memory.in_flight.count, app.service.admission.in_flight.count) == (1, 0)
        more.set()
        await until(lambda: engine.seen == [1])
        assert (app.service.upload_memory.in_flight.count, app.service.admission.in_flight.count) == (1, 1)
        assert app.service.admission.pipeline().in_flight.count == 1
        engine.release()
        assert (await uploading).status_code == 200
        assert (app.service.upload_memory.in_flight.count, app.service.admission.in_flight.count) == (0, 0)


async def test_what_no_waiting_mends_is_told_rather_than_to_come_again(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        is_full(app)
        wrong = await app.client.post("/detect", content=red_png(1), headers={"content-type": "text/plain"})
        check_error(wrong, 415, "media_type_not_accepted")
