"""One client connection that speaks just enough HTTP/1.1 to load a service.

The client shares its cores with the server it measures, so what it costs is an error of the measurement: requests are
put into bytes once, and of an answer only its length is understood while the load runs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from service.http.paths import DETECT

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}/?")
_HEAD_END = b"\r\n\r\n"


class ClosedError(ConnectionError):
    """The server closed the connection before the answer's end."""


class UnreadableError(ConnectionError):
    """The answer is not HTTP/1.1, or comes in chunks, which no answer of the service does."""


@dataclass(frozen=True)
class BenchTarget:
    """A server."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> BenchTarget:
        """The server of a URL, or of HOST:PORT. Raises ValueError unless it is http://HOST[:PORT]."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError:
            port = None
            parts = urlsplit("")
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url}: expected http://HOST:PORT")
        return cls(parts.hostname, port or 80)

    @staticmethod
    def is_meant_by(words: str) -> bool:
        """Whether words are a URL, or HOST:PORT, rather than the name of a file or model."""
        return "://" in words or (_HOST_AND_PORT.fullmatch(words) is not None and not Path(words).exists())


@dataclass(frozen=True)
class Request:
    """What is sent; a query stands in the path."""

    path: str = DETECT
    body: bytes = field(default=b"", repr=False)
    content_type: str = "image/jpeg"
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def wire(self, target: BenchTarget) -> bytes:
        """As it goes over the wire."""
        host = f"[{target.host}]" if ":" in target.host else target.host
        fields = {"Host": f"{host}:{target.port}"} | dict(self.headers)
        if self.method == "POST":
            fields |= {"Content-Type": self.content_type, "Content-Length": str(len(self.body))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join(lines).encode("latin-1") + _HEAD_END + self.body


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    head: bytes  # status line and headers
    body: bytes


class BenchConnection(asyncio.Protocol):
    """Sends one request at a time; an answer or an error ends it."""

    def __init__(self) -> None:
        self.is_open = False  # for another request
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head_length = 0  # bytes, with the empty line; 0 until it is there
        # Of the whole answer in bytes; None until it is known, or if the answer ends with the connection.
        self._length: int | None = None
        self._waiting: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, target: BenchTarget) -> BenchConnection:
        """Connect. Raises OSError."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, target.host, target.port)
        return connection

    async def exchange(self, wire: bytes) -> Reply:
        """Send a request and wait for its answer; to cancel this is to close the connection.

        Raises:
            ClosedError: the server closed the connection.
            UnreadableError: the answer cannot be read.
            OSError: the connection broke.
        """
        if self._transport is None or not self.is_open:
            raise ClosedError("the connection is closed")
        self._received, self._head_length, self._length = bytearray(), 0, None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection at once."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._received += data
        if not self._head_length and (end := self._received.find(_HEAD_END)) >= 0:
            self._read_head(end)
        if self._length is not None and len(self._received) >= self._length:
            self._finish()

    def eof_received(self) -> None:
        """See asyncio.Protocol; the end of an answer that told no length."""
        if self._head_length and self._length is None:
            self.is_open = False
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.is_open = False
        self._fail(exc or ClosedError("the server closed the connection"))

    def _read_head(self, end: int) -> None:
        self._head_length = end + len(_HEAD_END)
        head = self._received[:end]
        if not _STATUS.match(head) or _CHUNKED.search(head):
            self._fail(UnreadableError("the answer is not HTTP/1.1 with a length"))
        elif length := _LENGTH.search(head):
            self._length = self._head_length + int(length[1])

    def _finish(self) -> None:
        head = bytes(self._received[: self._head_length - len(_HEAD_END)])
        self.is_open = self.is_open and not _CLOSE.search(head)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Reply(int(head[9:12]), head, bytes(self._received[self._head_length :])))

    def _fail(self, error: Exception) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
