"""An upload and its answer: its client that may leave, and memory until it is sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Scope

from service.errors import UploadMemoryError
from service.http.exchange import CountedResponse
from service.images.task import Content
from service.lifecycle.uploads import UploadMemory
from tests.service.conftest import App, Serving, check_error, encode, red_png, scene, until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http"}


class Client:
    """A client at the ASGI level, which can leave at any moment."""

    def __init__(self, app: App, body: bytes, *, whole: bool = True) -> None:
        self.sent: list[Message] = []
        self._gone = asyncio.Event()
        self._messages = [{"type": "http.request", "body": body, "more_body": not whole}]
        self.task = asyncio.create_task(app.app(self._scope(), self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def _scope(self) -> Scope:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/detect",
            "raw_path": b"/detect",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [(b"content-type", b"image/png")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        return scope


async def test_who_leaves_the_queue_is_never_given_to_the_engine(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine, max_batch_size=1) as app:
        clients = [Client(app, red_png(red)) for red in range(10)]
        await until(lambda: app.service.admission.in_flight.count == 10 and len(engine.seen) == 1)
        first = engine.seen[0]
        stays = (first + 1) % 10
        for red, client in enumerate(clients):
            if red not in (first, stays):
                client.leave()
        await until(lambda: app.service.admission.in_flight.count == 2)
        engine.release()
        await asyncio.gather(*(client.task for client in clients))
        samples = await app.samples()
    assert engine.seen == [first, stays]
    assert [clients[red].sent[0]["status"] for red in (first, stays)] == [200, 200]
    assert samples['detr_requests_total{endpoint="detect",status="499"}'] == 8
    assert samples['detr_rejected_total{reason="client_gone"}'] == 8
    assert samples["detr_queue_depth"] == 0


async def test_who_leaves_during_the_upload_leaves_nothing_behind(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        client = Client(app, red_png(1)[:50], whole=False)
        await until(lambda: app.service.upload_memory.used_bytes == 50)
        client.leave()
        await client.task
        assert app.service.upload_memory.used_bytes == 0
    assert engine.seen == []


async def test_who_leaves_during_inference_disturbs_nobody(serving: Serving, engine: FakeEngine) -> None:
    engine.hold()
    async with serving(engine) as app:
        client = Client(app, red_png(1))
        await until(lambda: engine.seen == [1])
        client.leave()
        await client.task
        engine.release()
        assert (await app.detect(red_png(2))).status_code == 200
    assert engine.seen == [1, 2]


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
        await until(lambda: len(app.service.admission.pipeline().batcher._waiting) + len(engine.seen) == 2)
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
