"""Uploads that come slowly, all at once, and never end: what a server must not keep in memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.reliability.raw_http import request

UPLOAD = 15 * 2**20  # bytes that are announced
STOP_AT = 0.9  # of them; the rest never comes
A_SECOND = 100_000  # bytes
_PAUSE_S = 1.0  # as the answer to a refused upload says


@dataclass
class Flood:
    """What became of the uploads so far."""

    sent: int = 0  # bytes
    endings: Counter[int | str] = field(default_factory=Counter)  # status, or "closed" where there was none


@asynccontextmanager
async def flood(port: int, count: int) -> AsyncIterator[Flood]:
    """Keep so many uploads going for the length of the block; one that the server ends is begun anew."""
    state = Flood()
    uploads = [asyncio.create_task(_upload_for_ever(port, number, count, state)) for number in range(count)]
    try:
        yield state
    finally:
        for upload in uploads:
            upload.cancel()
        await asyncio.gather(*uploads, return_exceptions=True)


async def _upload_for_ever(port: int, number: int, count: int, state: Flood) -> None:
    await asyncio.sleep(number / count)  # so that they do not all send in the same moment
    path = ("/detect", "/segment")[number % 2]
    head = request(path, length=UPLOAD, content_type="image/jpeg") + b"\xff\xd8\xff"
    while True:
        with suppress(OSError):
            await _upload(port, head, state)
        await asyncio.sleep(_PAUSE_S)


async def _upload(port: int, head: bytes, state: Flood) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = asyncio.create_task(reader.read(65_536))
    try:
        writer.write(head)
        sent, piece, begin = 0, bytes(A_SECOND), time.monotonic()
        while sent < STOP_AT * UPLOAD and not answered.done():
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            state.sent += len(piece)
            await asyncio.wait([answered], timeout=max(0.0, begin + sent / A_SECOND - time.monotonic()))
        answer = await answered
        state.endings[int(answer.split()[1]) if answer else "closed"] += 1
    except OSError:
        state.endings["closed"] += 1
        raise
    finally:
        answered.cancel()
        await asyncio.gather(answered, return_exceptions=True)
        writer.transport.abort()
