"""Reading a request's body into memory, within bounds of size, time and memory shared by all uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager

from starlette.requests import Request

from service.errors import (
    DrainingError,
    EmptyUploadError,
    MediaTypeError,
    UploadMemoryError,
    UploadTimeoutError,
    UploadTooLargeError,
)
from service.process.trace import trace_of
from service.settings import Settings


class Upload:
    """One request's body and what its header says it is."""

    def __init__(self, content_type: str, memory: UploadMemory) -> None:
        self.content_type = content_type
        self._memory = memory
        self._body = bytearray()
        self._held = 0
        self._timeout: asyncio.Timeout | None = None
        self._is_ended = False

    @asynccontextmanager
    async def deadline(self, seconds: float) -> AsyncIterator[None]:
        """The time in which the block has to receive the upload.

        Raises:
            UploadTimeoutError: it passed.
            DrainingError: the upload was ended.
        """
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                yield
        except TimeoutError:
            if self._is_ended:
                raise DrainingError("the service is shutting down") from None
            raise UploadTimeoutError(f"the upload took longer than {1000 * seconds:g} ms") from None
        finally:
            self._timeout = None

    def end(self) -> None:
        """Wait no longer for what is still to come."""
        self._is_ended = True
        if self._timeout is not None:
            self._timeout.reschedule(asyncio.get_running_loop().time())

    def __len__(self) -> int:
        """Bytes received so far, released or not."""
        return self._held

    def append(self, chunk: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            UploadMemoryError: all uploads together would take too much.
        """
        self._memory.take(len(chunk))
        self._held += len(chunk)
        self._body += chunk

    @property
    def body(self) -> bytearray:
        """All bytes, until they are released."""
        return self._body

    def release(self) -> None:
        """Forget the bytes, once they are decoded or the request has ended."""
        self._memory.give_back(self._held)
        self._held = 0
        self._body = bytearray()


class UploadMemory:
    """Bytes that all uploads hold together, and answers that are not sent yet. For the event loop's thread only."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._uploads: set[Upload] = set()

    def take(self, count: int) -> None:
        """Account for bytes received, or to be sent.

        Raises:
            UploadMemoryError: there would be too many.
        """
        if self.used_bytes + count > self.max_bytes:
            raise UploadMemoryError("too many uploads and answers are under way, please try again later")
        self.used_bytes += count

    def give_back(self, count: int) -> None:
        """Account for bytes forgotten or sent."""
        self.used_bytes -= count

    @contextmanager
    def upload(self, content_type: str) -> Iterator[Upload]:
        """An empty upload, whose bytes are given back however the block ends."""
        upload = Upload(content_type, self)
        self._uploads.add(upload)
        try:
            yield upload
        finally:
            self._uploads.remove(upload)
            upload.release()

    def end_uploads(self) -> None:
        """Wait no longer for any that are still to come; nobody would answer them."""
        for upload in self._uploads:
            upload.end()


def check_headers(request: Request, max_body_bytes: int) -> str:
    """Refuse what the headers alone give away, and return the content type.

    Raises:
        MediaTypeError: neither a multipart form nor an image, or compressed in transit.
        UploadTooLargeError: the announced length is more than is accepted.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/"):
        raise MediaTypeError(
            "the body has to be multipart/form-data with a field `image`, or an image itself (image/*)"
        )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise MediaTypeError("a compressed body is not accepted")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _too_large(max_body_bytes)
    return content_type


async def receive(request: Request, upload: Upload, settings: Settings) -> None:
    """Read the whole body into `upload`; a body without an announced length is cut off where it passes the
    bound.

    Raises:
        UploadTooLargeError, UploadTimeoutError, UploadMemoryError, EmptyUploadError: what they say.
        DrainingError: the service ends before the upload does.
        ClientDisconnect: the client closed the connection.
    """
    trace = trace_of(request)
    async with upload.deadline(settings.body_timeout_ms / 1000), aclosing(request.stream()) as stream:
        async for chunk in stream:
            trace.received_bytes += len(chunk)
            if trace.received_bytes > settings.max_body_bytes:
                raise _too_large(settings.max_body_bytes)
            upload.append(chunk)
    if not upload.body:
        raise EmptyUploadError("the body is empty")


def _too_large(max_body_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(f"the upload has more than {max_body_bytes} bytes")
