"""Uploads in memory: each within its deadline, and all of them within one bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import DrainingError, UploadMemoryError, UploadTimeoutError
from service.lifecycle.in_flight import InFlight


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
        self.in_flight: InFlight[Upload] = InFlight()

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
        with self.in_flight.member(upload):
            try:
                yield upload
            finally:
                upload.release()

    def end_uploads(self) -> None:
        """Wait no longer for any that are still to come; nobody would answer them."""
        for upload in self.in_flight:
            upload.end()
