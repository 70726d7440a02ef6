"""Answers count as memory until they are sent, and uploads that nobody would answer are waited for no longer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message

from service.errors import UploadMemoryError
from service.http.counted_response import CountedResponse
from service.images.answers import Content
from service.lifecycle.uploads import UploadMemory
from tests.service.conftest import Serving, check_error, encode, scene, until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http"}


async def nothing() -> Message:
    raise AssertionError("an answer reads nothing")


async def test_an_answer_counts_until_it_is_sent() -> None:
    memory = UploadMemory(100)
    taking = asyncio.Event()
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        await taking.wait()

    answering = asyncio.create_task(CountedResponse(Content(b"x" * 60, "image/png"), memory)(SCOPE, nothing, send))
    await until(lambda: memory.used_bytes == 60)
    with pytest.raises(UploadMemoryError):
        await CountedResponse(Content(b"x" * 41, "image/png"), memory)(SCOPE, nothing, send)
    assert memory.used_bytes == 60
    taking.set()
    await answering
    assert memory.used_bytes == 0
    assert sent[-1]["body"] == b"x" * 60


async def test_an_answer_whose_client_goes_away_counts_no_more() -> None:
    memory = UploadMemory(100)

    async def send(message: Message) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await CountedResponse(Content(b"x" * 60, "image/png"), memory)(SCOPE, nothing, send)
    assert memory.used_bytes == 0


async def test_an_answer_for_which_there_is_no_memory_is_503(serving: Serving) -> None:
    body = encode(scene(90, 64), "JPEG", quality=30)
    async with serving(max_body_bytes=1024, max_buffered_bytes=1500) as app:
        overlay = await app.segment(body, params={"overlay": "true"})
        check_error(overlay, 503, "uploads_full")
        assert overlay.headers["retry-after"] == "1"
        assert (await app.detect(body)).status_code == 200
        assert app.service.upload_memory.used_bytes == 0


async def test_an_overlay_holds_its_upload_until_it_is_drawn_and_others_do_not(
    serving: Serving, engine: FakeEngine, jpeg: bytes
) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1) as app:
        waiting = [asyncio.create_task(app.segment(jpeg, params={"overlay": how})) for how in ("true", "false")]
        await until(lambda: len(app.service.pipeline().batcher._waiting) + len(engine.seen) == 2)
        assert app.service.upload_memory.used_bytes == len(jpeg)
        engine.release()
        assert [(await task).status_code for task in waiting] == [200, 200]
        assert app.service.upload_memory.used_bytes == 0


async def test_an_upload_that_a_drain_leaves_behind_is_told_at_once(
    serving: Serving, engine: FakeEngine, jpeg: bytes
) -> None:
    async with serving(engine, body_timeout_ms=600_000) as app:
        halfway = asyncio.Event()

        async def body() -> Any:
            yield jpeg[:100]
            halfway.set()
            await asyncio.sleep(600)

        uploading = asyncio.create_task(app.detect(body()))
        await halfway.wait()
        await until(lambda: app.service.upload_memory.used_bytes == 100)
        assert await app.service.drain(20) is True
        check_error(await uploading, 503, "draining")
        assert app.service.upload_memory.used_bytes == 0
