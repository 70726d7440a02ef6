"""A port over real sockets with a scripted app behind it, and clients that read and write by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.process.metrics import Metrics
from service.wire.connections import Connections
from service.wire.deadlines import ConnectionLimits
from service.wire.protocol import protocol_with

GET = b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LONG = 600.0  # seconds; what is not under test waits for ever
LARGE = 64 * 2**20  # bytes; more than any socket buffers
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Port:
    """A listening port, what its app was asked and has answered, and the clients that were made for it."""

    number: int
    metrics: Metrics
    asked: list[str]
    answered: list[str]
    release: asyncio.Event
    clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, data: bytes = b"") -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.number, limit=2**20)
        self.clients.append(writer)
        writer.write(data)
        await writer.drain()
        return reader, writer

    async def exchange(self, data: bytes) -> bytes:
        """Send, and read until the server closes."""
        reader, _ = await self.connect(data)
        return await reader.read()

    def sample(self, name: str) -> float:
        for family in text_string_to_metric_families(self.metrics.text().decode()):
            for sample in family.samples:
                labels = "".join(sample.labels.values())
                if f"{sample.name}{labels and '/' + labels}" == name:
                    return float(sample.value)
        return 0.0

    async def until(self, name: str, value: float) -> None:
        async with asyncio.timeout(60):
            while self.sample(name) != value:
                await asyncio.sleep(0.005)

    async def until_asked(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.asked) < count:
                await asyncio.sleep(0.005)


def scripted(
    asked: list[str], answered: list[str], release: asyncio.Event
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An app: /hold answers when told, /large answers much, /read reads its body, /echo answers with it, /watch waits
    until its client has gone, anything else answers at once.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        asked.append(path)
        if path == "/hold":
            await release.wait()
        if path == "/read":
            try:
                while (await receive()).get("more_body"):
                    pass
            except MemoryError:
                asked.append("there is no memory")
        if path == "/watch":
            while (message := (await receive())["type"]) == "http.request":
                pass
            asked.append(message)
        body = b"x" * LARGE if path == "/large" else path.encode()
        if path == "/echo":
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message["body"], message["more_body"]
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})
        answered.append(path)

    return app


@asynccontextmanager
async def listening(max_connections: int = 100, **changes: float) -> AsyncIterator[Port]:
    limits: dict[str, Any] = dict.fromkeys(("header_timeout", "body_timeout", "write_timeout"), LONG)
    limits |= {"max_header_bytes": 4096} | changes
    metrics, asked, answered, release = Metrics(), list[str](), list[str](), asyncio.Event()
    protocol = protocol_with(ConnectionLimits(**limits), Connections(max_connections, metrics), retry_after_s=7)
    config = uvicorn.Config(
        scripted(asked, answered, release), http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
        timeout_keep_alive=600,
    )  # fmt: skip
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    port = Port(server.sockets[0].getsockname()[1], metrics, asked, answered, release)
    try:
        yield port
    finally:
        server.close()
        for client in port.clients:
            client.close()
        await port.until("detr_connections", 0)
        async with asyncio.timeout(60):
            while state.tasks:
                await asyncio.sleep(0.005)


async def is_closed(client: Client) -> bool:
    """Whether the server has closed; what it sent is thrown away."""
    try:
        while await asyncio.wait_for(client[0].read(65536), 0.05):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True
    return True


async def answer(client: Client) -> bytes:
    """One answer, whose length its header says."""
    head = await client[0].readuntil(b"\r\n\r\n")
    (length,) = (line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    return head + await client[0].readexactly(int(length))
