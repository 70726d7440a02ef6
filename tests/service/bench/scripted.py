"""A server that answers as a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from service.bench.connection import BenchTarget


def answer(status: int = 200, body: bytes = b"{}", *headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Phrase", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# Takes the head and the body of a request; what it returns is written as it is, and None closes the connection.
Script = Callable[[bytes, bytes], Awaitable[bytes | None]]


@dataclass
class Seen:
    """What the server saw."""

    target: BenchTarget
    connections: int = 0
    bodies: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0


@asynccontextmanager
async def scripted_server(script: Script) -> AsyncIterator[Seen]:
    seen = Seen(BenchTarget("127.0.0.1", 0))
    # Of connections. A task that waits for what only it knows, and whose client has gone, would be collected.
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        if (task := asyncio.current_task()) is not None:
            serving.append(task)
        try:
            while await _exchange(script, seen, reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.target = BenchTarget("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield seen
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


async def _exchange(script: Script, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0)
    body = await reader.readexactly(length)
    seen.heads.append(head)
    seen.bodies.append(body)
    seen.in_flight += 1
    seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)
    reply = await script(head, body)
    seen.in_flight -= 1
    if reply is None:
        return False
    writer.write(reply)
    await writer.drain()
    return b"content-length" in reply
