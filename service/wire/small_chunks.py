"""An h11 connection that takes no body in small chunks, and tells why it takes a request no further.

h11 hands on each chunk of a body by itself, at about 5 microseconds of the event loop's time, and bounds neither their
number nor their length: an upload within the bound on bytes, in chunks of one byte, would take the loop a minute.
"""

from __future__ import annotations

import h11

# Clients send kilobytes at a time. A body may begin in pieces of any length, which is about 20 ms of work.
_FREE_PIECES = 4096
_LEAST_MEAN_BYTES = 128  # of a piece, beyond those


class BoundedConnection(h11.Connection):
    """Like h11's own, for a server, but a request's body has to come in pieces of some length."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self.headers_are_too_large = False
        self.has_small_chunks = False
        self._pieces = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event, or that there is none yet.

        Raises:
            h11.RemoteProtocolError: the request is not valid HTTP, its headers are too large, or its body comes in
                small chunks.
        """
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            # What is buffered may be more than headers, so its length does not tell.
            self.headers_are_too_large = error.error_status_hint == 431
            raise
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._count(len(event.data))
        return event

    def _count(self, length: int) -> None:
        self._pieces += 1
        self._bytes += length
        if self._pieces > _FREE_PIECES and self._bytes < _LEAST_MEAN_BYTES * self._pieces:
            self.has_small_chunks = True
            raise h11.RemoteProtocolError("a body in small chunks")
