"""An h11 connection that takes empty lines before a request, but no body in small chunks, and tells why it takes a
request no further.

Some clients end a body with an empty line that does not belong to it. A server should ignore one before a request
(RFC 9112, section 2.2), and h11 takes it for a request without a first line.

h11 hands on each chunk of a body by itself, at about 5 microseconds of the event loop's time, and bounds neither their
number nor their length: an upload within the bound on bytes, in chunks of one byte, would take the loop a minute.

It also copies each piece twice, which for a photo is milliseconds; so pieces that are nothing but body pass by it.
"""

from __future__ import annotations

import h11
from h11._readers import ContentLengthReader

# Clients send kilobytes at a time. A body may begin in pieces of any length, which is about 20 ms of work.
_FREE_PIECES = 4096
_LEAST_MEAN_BYTES = 128  # of a piece, beyond those

_MAX_EMPTY_LINES = 8  # before a request


class BoundedConnection(h11.Connection):
    """Like h11's own, for a server, but a request's body has to come in pieces of some length."""

    def __init__(self, max_header_bytes: int) -> None:
        super().__init__(h11.SERVER, max_header_bytes)
        self.headers_are_too_large = False
        self.has_small_chunks = False
        self._empty_lines = 0
        self._pieces = 0
        self._bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event, or that there is none yet.

        Raises:
            h11.RemoteProtocolError: the request is not valid HTTP, its headers are too large, or its body comes in
                small chunks.
        """
        if self.their_state is h11.IDLE and self._begins_with_half_an_end():
            return h11.NEED_DATA
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            # What is buffered may be more than headers, so its length does not tell.
            self.headers_are_too_large = error.error_status_hint == 431
            raise
        if isinstance(event, h11.Request):
            self._empty_lines = self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._count(len(event.data))
        return event

    def passes_by(self, data: bytes) -> bool:
        """Whether all data are of a body whose length was announced; they count as read then, and go elsewhere.

        If they are its last, the next event is its end.
        """
        reader = self._reader
        if (
            self.their_state is not h11.SEND_BODY
            or not isinstance(reader, ContentLengthReader)
            or not _LEAST_MEAN_BYTES <= len(data) <= reader._remaining
            or self._receive_buffer
            or self._pieces >= _FREE_PIECES  # which have to be looked at
            or self.they_are_waiting_for_100_continue
        ):
            return False
        reader._remaining -= len(data)
        self._count(len(data))
        return True

    def _begins_with_half_an_end(self) -> bool:
        """Skip empty lines; whether nothing has come behind them but what may become another one."""
        buffer = self._receive_buffer
        while buffer._data.startswith((b"\n", b"\r\n")) and self._empty_lines < _MAX_EMPTY_LINES:
            buffer.maybe_extract_lines()  # takes one empty line
            self._empty_lines += 1
        return buffer._data == b"\r"

    def _count(self, length: int) -> None:
        self._pieces += 1
        self._bytes += length
        if self._pieces > _FREE_PIECES and self._bytes < _LEAST_MEAN_BYTES * self._pieces:
            self.has_small_chunks = True
            raise h11.RemoteProtocolError("a body in small chunks")
