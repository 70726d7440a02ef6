"""Nothing is computed for a client that has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Message, Scope

from tests.service.conftest import App, Serving, red_png, until
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio


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
        await until(lambda: app.service.pipeline().admission.taken == 10 and len(engine.seen) == 1)
        first = engine.seen[0]
        stays = (first + 1) % 10
        for red, client in enumerate(clients):
            if red not in (first, stays):
                client.leave()
        await until(lambda: app.service.pipeline().admission.taken == 2)
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
