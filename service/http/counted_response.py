"""An answer whose bytes count as memory until they are sent, however slowly its client reads."""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.images.answers import Content
from service.lifecycle.uploads import UploadMemory


class CountedResponse(Response):
    """Takes its part of the memory that uploads and answers share, and gives it back when it has gone out.

    Sending raises UploadMemoryError if there is not enough.
    """

    def __init__(self, content: Content, memory: UploadMemory) -> None:
        super().__init__(content.body, media_type=content.media_type)
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        size = len(self.body)
        self._memory.take(size)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._memory.give_back(size)
