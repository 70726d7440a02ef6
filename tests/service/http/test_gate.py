"""What is kept out before the app hears of it, and what is answered in its stead."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest

from service.app import create_metrics_app
from service.settings import Settings
from tests.service.conftest import Serving, check_error, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("connections", "requests"), [(4, 3), (31, 30), (32, 31), (64, 62), (512, 496)])
def test_some_connections_are_kept_for_health(connections: int, requests: int) -> None:
    assert Settings(max_connections=connections).max_requests == requests


async def test_beyond_the_requests_that_connections_allow_only_health_is_answered(
    serving: Serving, engine: FakeEngine
) -> None:
    engine.hold()
    async with serving(engine, max_connections=4) as app:
        working = [asyncio.create_task(app.detect(red_png(red))) for red in range(3)]
        await until(lambda: app.service.metrics.registry.get_sample_value("detr_requests_in_flight") == 3)
        for path in ("/detect", "/model", "/metrics", "/", "/nowhere"):
            response = await app.client.get(path)
            check_error(response, 503, "too_many_connections")
            assert response.headers["retry-after"] == "1"
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
            assert (await app.client.get(path)).status_code == 200
        engine.release()
        assert [response.status_code for response in await asyncio.gather(*working)] == [200] * 3
        assert (await app.client.get("/model")).status_code == 200


async def test_each_port_has_requests_of_its_own_and_the_gauge_shows_all(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_connections=4, metrics_port=1) as app:
        working = [asyncio.create_task(app.detect(red_png(red))) for red in range(3)]
        await until(lambda: app.service.requests.count == 3)
        transport = httpx.ASGITransport(create_metrics_app(app.app))
        async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as scraper:
            scrape = await scraper.get("/metrics")
        assert "detr_requests_in_flight 4.0" in scrape.text, "the scrape itself among them"
        check_error(await app.client.get("/model"), 503, "too_many_connections")
        engine.release()
        await asyncio.gather(*working)


@pytest.mark.parametrize("path", ["/detect?x=1", "/segment", "/v2/models/nobody/infer"])
async def test_a_full_queue_refuses_before_the_request_is_understood(
    serving: Serving, engine: FakeEngine, path: str
) -> None:
    async with serving(engine, retry_after_s=7) as app:
        app.service.admission.capacity = 0
        response = await app.client.post(path, content=b"?", headers={"content-type": "image/png"})
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
        assert (await app.client.get("/model")).status_code == 200
        assert (await app.client.get("/detect")).status_code == 405
        samples = await app.samples()
    assert samples['detr_rejected_total{reason="queue_full"}'] == 1


async def test_headers_are_bounded_in_number(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        many = [(f"x-{number}", "") for number in range(1000)]
        check_error(await app.client.get("/health/live", headers=many), 431, "headers_too_large")
        assert (await app.client.get("/health/live", headers=many[:90])).status_code == 200


async def test_what_nobody_foresaw_is_answered_and_logged_once(
    serving: Serving, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(engine) as app:

        def broken() -> None:
            raise LookupError("why it failed")

        app.app.add_api_route("/broken", broken)

        check_error(await app.client.get("/broken"), 500, "internal_error")
    (record,) = (record for record in caplog.records if record.levelno == logging.ERROR)
    assert record.exc_info is not None
    assert "why it failed" in str(record.exc_info[1])
