"""Live is about the process, ready about the next request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from model.runtime.artifact.file import ArtifactError
from model.runtime.engines.engine import Engine
from model.runtime.engines.golden_replay import replay_golden as replay
from service.app import create_app
from service.lifecycle.loading import LoadedModel, load_model
from service.lifecycle.service import Service
from service.process.watched_threads import threads_left
from service.settings import Settings
from tests.service.conftest import Serving, check_error, red_png, until
from tests.service.fakes import EngineLoader, FakeEngine

pytestmark = pytest.mark.anyio

LIVE = ("/health/live", "/v2/health/live")
READY = ("/health/ready", "/v2/health/ready")


async def test_a_loaded_service_is_live_and_ready(serving: Serving) -> None:
    async with serving() as app:
        answers = {path: (await app.client.get(path)).json() for path in LIVE + READY}
    assert answers == {
        "/health/live": {"status": "live"},
        "/health/ready": {"status": "ready"},
        # As clients of the Open Inference Protocol read them: kserve's takes any other body for "no".
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
    }


async def test_a_failure_under_the_protocol_is_a_string_which_its_clients_print(serving: Serving) -> None:
    async with serving() as app:
        app.service.begin_drain()
        refused, missing = [await app.client.get(path) for path in ("/v2/health/ready", "/v2/nowhere")]
    assert (refused.status_code, refused.json()) == (503, {"error": "the service is shutting down"})
    assert refused.headers["retry-after"]
    assert (missing.status_code, missing.json()) == (404, {"error": "not found"})


async def test_it_is_ready_only_after_the_golden_sample(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[float] = []
    monkeypatch.setattr("service.lifecycle.loading.replay_golden", lambda *args: replayed.append(replay(*args)))
    async with serving() as app:
        assert (await app.client.get("/health/ready")).status_code == 200
    assert len(replayed) == 1


async def test_a_service_that_is_draining_is_live_and_not_ready(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        app.service.begin_drain()
        check_error(await app.client.get("/health/ready"), 503, "draining")
        assert (await app.client.get("/v2/health/ready")).status_code == 503
        for path in LIVE:
            assert (await app.client.get(path)).status_code == 200


async def test_a_service_that_delays_its_drain_is_not_ready_and_takes_work(serving: Serving, jpeg: bytes) -> None:
    async with serving(drain_delay_ms=3_600_000) as app:
        app.service.begin_drain()
        check_error(await app.client.get("/health/ready"), 503, "draining")
        assert (await app.client.post("/detect", files={"image": jpeg})).status_code == 200
        delayed = asyncio.create_task(app.service.delay_drain())
        await asyncio.sleep(0)
        assert not delayed.done()
        # Nobody could be served any more.
        app.service.engine_lost()
        await delayed
        check_error(await app.client.post("/detect", files={"image": jpeg}), 503, "draining")


async def test_a_drain_answers_what_was_accepted(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=2) as app:
        accepted = [asyncio.create_task(app.detect(red_png(red))) for red in range(5)]
        await until(lambda: app.service.admission.in_flight.count == 5)
        draining = asyncio.create_task(app.service.drain(20))
        await asyncio.sleep(0.01)
        check_error(await app.detect(red_png(9)), 503, "draining")
        engine.release()
        assert await draining is True
        assert [response.status_code for response in await asyncio.gather(*accepted)] == [200] * 5
    assert 9 not in engine.seen


async def test_a_drain_that_runs_out_of_time_fails_the_rest(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1) as app:
        accepted = [asyncio.create_task(app.detect(red_png(red))) for red in range(3)]
        await until(lambda: app.service.admission.in_flight.count == 3 and len(engine.seen) == 1)
        assert await app.service.drain(0.01) is False
        for response in await asyncio.gather(*accepted):
            check_error(response, 503, "draining")
        assert "engine_0" in threads_left(0), "which nobody can interrupt"
        engine.release()
    assert len(engine.seen) == 1


def app_that_loads(load: Callable[[], LoadedModel]) -> FastAPI:
    """An app whose one model comes from a function."""

    class Loader:
        def load(self) -> LoadedModel:
            return load()

        def reopen(self, digest: str, name: str) -> Engine:
            raise AssertionError("there is no need")

    return create_app(Settings(batch_timing_ms=0), Loader())


async def test_who_runs_the_service_hears_of_its_model_before_the_first_request() -> None:
    settings = Settings(batch_timing_ms=0)
    app = create_app(settings, EngineLoader(settings, FakeEngine()))
    service: Service = app.state.service
    told = []
    service.on_loaded = lambda: told.append(service.admission.current)
    async with app.router.lifespan_context(app):
        await service.loaded()
        assert told == [None]
        assert service.admission.current is not None


async def test_the_reason_why_a_model_cannot_be_loaded_is_kept() -> None:
    def refuse() -> LoadedModel:
        raise ArtifactError("x.onnx: is truncated")

    app = app_that_loads(refuse)
    service: Service = app.state.service
    told = []
    service.on_failure = lambda: told.append(service.failure)
    async with app.router.lifespan_context(app):
        await service.loaded()
        assert [str(failure) for failure in told] == ["x.onnx: is truncated"]
        assert service.failure in told


async def test_a_failure_nobody_foresaw_at_the_start_says_no_more_than_its_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def explode() -> LoadedModel:
        raise RuntimeError("/secret/path at 0x7f0c12345678")

    app = app_that_loads(explode)
    async with app.router.lifespan_context(app):
        await app.state.service.loaded()
        assert str(app.state.service.failure) == "the model cannot be loaded: RuntimeError"
    assert "/secret/path" in caplog.text


async def test_a_service_stopped_while_it_loads_never_opens(panoptic_artifact: Path) -> None:
    entered, proceed = threading.Event(), threading.Event()

    def slow() -> LoadedModel:
        entered.set()
        proceed.wait(20)
        return load_model(Settings(model=str(panoptic_artifact), device="cpu", engine_threads=1))

    app = app_that_loads(slow)
    service: Service = app.state.service
    async with app.router.lifespan_context(app):
        await until(entered.is_set)
        assert await service.drain(5) is True
    assert "loader_0" in threads_left(0), "which nobody can interrupt"
    proceed.set()
    assert service.admission.is_closed
