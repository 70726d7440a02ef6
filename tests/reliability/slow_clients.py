"""Clients that send their request a byte at a time, all at once, and how long each is borne."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """How the server ended a slow connection."""

    seconds: float  # from when it was made until it was closed
    status: int | None  # of the answer, if there was one


async def crawl(port: int, count: int, begin: bytes, rest: bytes, interval_s: float, limit_s: float) -> list[Ending]:
    """`count` clients that send `begin` at once, and then a byte of `rest` (over and over) each interval.

    Raises:
        TimeoutError: the server did not close one of them within the limit.
    """
    return await asyncio.gather(*(_crawl(port, begin, rest, interval_s, limit_s) for _ in range(count)))


async def _crawl(port: int, begin: bytes, rest: bytes, interval_s: float, limit_s: float) -> Ending:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = time.monotonic()
    sending = asyncio.create_task(_dribble(writer, begin, rest, interval_s))
    try:
        async with asyncio.timeout(limit_s):
            received = await _until_closed(reader)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    status = int(received.split()[1]) if received else None
    return Ending(time.monotonic() - started, status)


async def _dribble(writer: asyncio.StreamWriter, begin: bytes, rest: bytes, interval_s: float) -> None:
    with suppress(ConnectionError):
        writer.write(begin)
        position = 0
        while rest:
            await writer.drain()
            await asyncio.sleep(interval_s)
            writer.write(rest[position : position + 1])
            position = (position + 1) % len(rest)


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            received += chunk
    return received
