"""Uploads in memory: each within its deadline, and all of them within one bound."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from service.errors import DrainingError, UploadMemoryError, UploadTimeoutError
from service.lifecycle.in_flight import InFlight

# What an upload of usual size has; the rest of a larger one comes in turns.
_BEFORE_TURNS = 4 * 2**20  # bytes
_PAUSE_S = 0.002
# What comes in less is gathered into pieces of this size, so that an upload is never thousands of objects.
_PIECE = 64 * 2**10  # bytes


class Turns:
    """Lets one of those who wait go on, first come, first served, and where several wait pauses before the next.

    Eight uploads of 16 MiB at once would have the event loop for half a second, and each of the dozen rounds in which
    a small request is served would be one of all eight. So each round has one piece at most (64 to 256 KiB), and large
    uploads together go on at about a gigabit a second. One alone does not wait.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait for the next turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._next)
        self._waiting.append(turn)
        await turn

    def _next(self) -> None:
        turn = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_later(_PAUSE_S, self._next)
        if not turn.done():  # as it is where who waited was cancelled
            turn.set_result(None)


class Upload:
    """One request's body and what its header says it is."""

    def __init__(self, content_type: str, memory: UploadMemory) -> None:
        self.content_type = content_type
        self._memory = memory
        self._pieces: list[bytes] = []
        self._small = bytearray()  # the last bytes, which are no piece yet
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

    async def append(self, chunk: bytes) -> None:
        """Take the next piece of the body, and wait for a turn before the one after it if the upload is large.

        Raises:
            UploadMemoryError: all uploads together would take too much.
        """
        self._memory.take(len(chunk))
        self._held += len(chunk)
        self._keep(chunk)
        if self._held > _BEFORE_TURNS:
            await self._memory.turns.wait()

    def hold(self, count: int) -> None:
        """Count so many bytes of an answer, too, until the upload is released.

        Raises:
            UploadMemoryError: all uploads and answers together would take too much.
        """
        self._memory.take(count)
        self._held += count

    def body(self) -> bytes:
        """All bytes in one, until they are released. For the thread that needs them.

        They are put together here and not as they come. A buffer that grows is copied again and again, by the event
        loop: 225 ms for eight uploads of 16 MiB. To join pieces takes one copy, without Python's lock.
        """
        whole = b"".join([*self._pieces, *([bytes(self._small)] if self._small else ())])  # of a single piece itself
        self._pieces, self._small = [whole], bytearray()
        return whole

    def release(self) -> None:
        """Forget the bytes, once they are decoded or the request has ended."""
        self._memory.give_back(self._held)
        self._held = 0
        self._pieces, self._small = [], bytearray()

    def _keep(self, chunk: bytes) -> None:
        if len(chunk) < _PIECE:
            self._small += chunk
            if len(self._small) < _PIECE:
                return
            chunk = b""
        self._pieces += [bytes(part) for part in (self._small, chunk) if part]
        self._small = bytearray()


class UploadMemory:
    """Bytes that all uploads hold together, and answers that are not sent yet. For the event loop's thread only."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.in_flight: InFlight[Upload] = InFlight()
        self.turns = Turns()

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
