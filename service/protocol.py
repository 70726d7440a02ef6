"""HTTP/1.1 as uvicorn speaks it, with two additions: a deadline for headers, and errors in the service's one
shape.

uvicorn waits for the rest of a header without end, so a client that sends one byte a second can hold a
connection for as long as it likes, and the app never hears of it.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.middleware import new_request_id
from service.schemas import ErrorBody, ErrorResponse


class GuardedProtocol(H11Protocol):
    """One connection. h11 is chosen over httptools because it is strict, and bounds headers."""

    header_timeout: ClassVar[float]  # seconds

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request's headers."""
        super().connection_made(transport)
        self._watch_headers()

    def data_received(self, data: bytes) -> None:
        """Take data, and start or stop the clock by whether a request is being answered."""
        super().data_received(data)
        self._watch_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has headers beyond the bound, in the error shape."""
        too_large = len(self.conn.trailing_data[0]) > (self.config.h11_max_incomplete_event_size or 0)
        status, code = (431, "headers_too_large") if too_large else (400, "bad_request")
        message = "the request's headers are too large" if too_large else "the request is not valid HTTP"
        error = ErrorBody(code=code, message=message, request_id=new_request_id())
        body = ErrorResponse(error=error).model_dump_json().encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        # Where an answer is already under way, there is no place for another.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (h11.Response(status_code=status, headers=headers), h11.Data(body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_headers(self) -> None:
        """What arrives while no request is under way begins one, or is the rest of a refused one."""
        if self._is_answering():
            self._stop_timer()
        elif self._header_timer is None:
            self._header_timer = self.loop.call_later(self.header_timeout, self._give_up)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _give_up(self) -> None:
        self._header_timer = None
        # A request whose headers came in time may have begun since the clock started.
        if not self._is_answering():
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle = getattr(self, "cycle", None)  # uvicorn's type says it is never None, and it begins so
        return cycle is not None and not cycle.response_complete


def protocol_with(header_timeout_seconds: float) -> type[GuardedProtocol]:
    """The protocol with its deadline, as the class that uvicorn asks for."""
    return type("Protocol", (GuardedProtocol,), {"header_timeout": header_timeout_seconds})
