"""A tiny artifact, an app with a scripted engine, and pictures to send."""

from __future__ import annotations

import asyncio
import io
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.lifecycle.service import Service
from service.settings import Settings
from tests.processes import PATIENCE_S
from tests.service.fakes import EngineLoader, FakeEngine
from tests.service.running import Inside, launcher
from tests.tiny_artifact import write_tiny_artifact

# What no answer to a client may hold: an address, a path, a traceback.
LEAK = re.compile(r"0x[0-9a-f]{6,}|/usr/|site-packages|Traceback|/home|/work|/tmp", re.IGNORECASE)
JPEG = {"content-type": "image/jpeg"}
_COUNTED = ("_total", "_sum", "_count", "_bucket")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def panoptic_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny.onnx", "panoptic")


@pytest.fixture(scope="session")
def detection_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny-detection.onnx", "detection")


@pytest.fixture(scope="session")
def attentive_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A panoptic one whose graph gives its attention."""
    return write_tiny_artifact(tmp_path_factory.mktemp("artifact") / "tiny-attentive.onnx", "panoptic", attention=True)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undo what `configure_logging` changes; pytest itself undoes what is done to warnings."""
    loggers = [logging.getLogger(name) for name in (None, "service", "model", "uvicorn")]
    before = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    yield
    for logger, handlers, level in before:
        logger.handlers[:] = handlers
        logger.setLevel(level)
    logging.raiseExceptions = True


@pytest.fixture
def engine() -> FakeEngine:
    """An engine that does what it is told; for a server elsewhere none, and whichever test looks into it is skipped."""
    return FakeEngine() if launcher() is None else cast("FakeEngine", Inside("engine"))


@pytest.fixture
def inside() -> None:
    """For tests that change or read what is in the process of the app."""
    if launcher() is not None:
        pytest.skip("needs the app in this process")


@dataclass
class App:
    """A running app and a client for it, without a network in between unless it runs elsewhere."""

    client: httpx.AsyncClient
    app: FastAPI
    before: dict[str, float] = field(default_factory=dict)  # what had been counted when the test began

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    async def detect(self, body: bytes | AsyncIterator[bytes], **options: Any) -> httpx.Response:
        return await self.client.post("/detect", content=body, headers=JPEG, **options)

    async def segment(self, body: bytes, **options: Any) -> httpx.Response:
        return await self.client.post("/segment", content=body, headers=JPEG, **options)

    async def samples(self) -> dict[str, float]:
        """Every sample of /metrics, by its name and labels as Prometheus keeps them, which drops empty ones.

        Of several replicas it is the sum of what they count, since `begin`, and else the largest.
        """
        answer = await self.client.get("/metrics")
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(answer.text if answer.status_code == 200 else ""):
            for sample in family.samples:
                own = sorted((key, value) for key, value in sample.labels.items() if key != "replica" and value)
                labels = ",".join(f'{key}="{value}"' for key, value in own)
                name = f"{sample.name}{{{labels}}}" if labels else sample.name
                others = found.get(name, 0.0)
                found[name] = max(others, sample.value) if family.type == "gauge" else others + sample.value
        return {name: value - self.before.get(name, 0) for name, value in found.items()}

    async def begin(self) -> None:
        """Let what is counted by now count no more."""
        found = await self.samples()
        self.before = {name: found[name] for name in found if name.partition("{")[0].endswith(_COUNTED)}


Serving = Callable[..., Any]


@pytest.fixture
def serving(panoptic_artifact: Path) -> Serving:
    """Run an app for the length of an `async with` block: `serving(engine, max_queue_size=2)`.

    Without an engine, the model's own is opened.
    """

    @asynccontextmanager
    async def run(*engines: FakeEngine, **settings: Any) -> AsyncIterator[App]:
        values: dict[str, Any] = {
            "model": panoptic_artifact,
            "device": "cpu",
            "engine_threads": 1,
            "drain_timeout_ms": 5000,
            "request_timeout_ms": 600_000,  # a loaded machine is not a failure
            "batch_timing_ms": 0,  # who shares a batch with whom must not depend on the machine
        }
        if (elsewhere := launcher()) is not None:
            async with (
                elsewhere.serving(values, settings) as url,
                httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as client,
            ):
                app = App(client, cast("FastAPI", Inside("app")))
                await app.begin()
                yield app
            return
        chosen = Settings(**(values | settings))
        made = create_app(chosen, EngineLoader(chosen, *engines) if engines else None)
        async with made.router.lifespan_context(made):
            await made.state.service.loaded()
            transport = httpx.ASGITransport(made)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield App(client, made)

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def encode(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def red_png(red: int, size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture that FakeEngine knows by its red; of a size that is not resized."""
    return encode(Image.new("RGB", size, (red, 0, 0)), "PNG")


def scene(width: int = 128, height: int = 96) -> Image.Image:
    """A red picture with a bright rectangle, in which the tiny model sees a thing and some stuff."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    pixels[height // 5 : height * 3 // 5, width // 4 : width * 3 // 4] = (250, 240, 230)
    return Image.fromarray(pixels)


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    return encode(scene(), quality=95)


def check_error(response: httpx.Response, status: int, code: str) -> None:
    """The response is this error, in the one shape, and gives nothing away."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"code", "message", "request_id"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    assert not LEAK.search(response.text), response.text
