"""HTTP/1.1 as uvicorn speaks it, with what it lacks: deadlines for headers and for reading an answer, a bound on
connections, an end to connections whose upload was refused half-way, and errors in the service's one shape.

uvicorn waits for the rest of a header without end, and as long for an answer to be read, so a client that sends or
reads one byte a second can hold a connection for as long as it likes, and the app never hears of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import MalformedRequestError
from service.process.trace import Trace, new_request_id
from service.schemas import ErrorBody, ErrorResponse
from service.wire.connections import Connections, Limits
from service.wire.small_chunks import CrumbRefusingConnection

logger = logging.getLogger("service.request")

# Who has just been answered gets a moment to notice, however late it is.
_MIN_LINGER_S = 1.0
_NOT_HTTP = "the request is not valid HTTP"
_CRUMBS = "the body comes in too many small pieces; send kilobytes at a time"


class _Transport:
    """A transport that leaves it to the protocol how it is closed; all else is the real one's."""

    def __init__(self, real: asyncio.Transport, protocol: GuardedProtocol) -> None:
        self.write = real.write
        self.close = protocol.close
        self._real = real
        self._protocol = protocol

    def is_closing(self) -> bool:
        return self._protocol.is_closing or self._real.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class _Clock:
    """A deadline that can be set and lifted."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float, callback: Callable[..., None], *args: str) -> None:
        """Call back after so long, unless a deadline is set already."""
        if self._timer is None:
            self._timer = self._loop.call_later(seconds, callback, *args)

    def stop(self) -> None:
        """Lift the deadline, if one is set or has passed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class GuardedProtocol(H11Protocol):
    """One connection. h11 is chosen over httptools because it is strict, and bounds headers."""

    limits: ClassVar[Limits]
    registry: ClassVar[Connections]
    retry_after_s: ClassVar[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: CrumbRefusingConnection = CrumbRefusingConnection(self.limits.max_header_bytes)
        self._app = self.app
        self.app = self._run_app
        self.is_closing = False
        self._is_malformed = False  # in the middle of a body
        self._header_clock = _Clock(self.loop)
        self._write_clock = _Clock(self.loop)
        self._rest_clock = _Clock(self.loop)
        self._body_deadline = 0.0  # the event loop's time
        self._rest_bytes = self.limits.max_rest_bytes

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request's headers, if there is room for this connection."""
        self._real = transport
        super().connection_made(cast("asyncio.Transport", _Transport(transport, self)))
        self._watch_headers()
        if not self.registry.opened(self):
            self._refuse(503, "too_many_connections", "too many connections are open, please try again later")

    def data_received(self, data: bytes) -> None:
        """Take data, and start or stop the clock by whether a request is being answered."""
        if self.is_closing or self._is_malformed:
            self._throw_away(len(data))
            return
        super().data_received(data)
        self._watch_headers()

    def pause_writing(self) -> None:
        """Start the clock of an answer that does not fit into the buffers."""
        super().pause_writing()
        self._write_clock.start(self.limits.write_timeout, self._cut_off, "slow_reader")
        self.registry.waits(self)

    def resume_writing(self) -> None:
        """Stop the clock, most of the answer having been read."""
        super().resume_writing()
        if not self.is_closing:
            self._write_clock.stop()
            self._note_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self.is_closing = True
        for clock in (self._header_clock, self._write_clock, self._rest_clock):
            clock.stop()
        self.registry.closed(self)
        super().connection_lost(exc)

    # What uvicorn calls.

    def handle_events(self) -> None:
        """Note when a request begins."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._body_deadline = self.loop.time() + self.limits.body_timeout
            self._note_turn()

    def on_response_complete(self) -> None:
        """Note whose turn it is next."""
        super().on_response_complete()
        self._note_turn()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has headers beyond the bound, in the error shape."""
        if self._is_answering():
            # The app is told when it reads on, and answers.
            self._is_malformed = True
            self.cycle.message_event.set()
        elif len(self.conn.trailing_data[0]) > self.limits.max_header_bytes:
            self._refuse(431, "headers_too_large", "the request's headers are too large")
        else:
            self._refuse(400, "bad_request", _NOT_HTTP)

    def close(self) -> None:
        """Close once the client can have read its answer; called a second time, close now.

        To close while the client still sends would make its system throw the answer away unread. So where the upload
        has not ended, the connection is closed in one direction only, and in the other when the client has closed
        it too, at the deadline of the upload, or after as many bytes as an upload may have.
        """
        if self._is_amid_upload() and not self.is_closing:
            self._linger()
            return
        self.is_closing = True
        self._header_clock.stop()
        self._real.close()
        if self.has_unread_answer():
            self._write_clock.start(self.limits.write_timeout, self._cut_off, "slow_reader")

    # What `Connections` calls.

    def make_room(self) -> None:
        """Close at once."""
        self._cut_off("room")

    def has_unread_answer(self) -> bool:
        """Whether not all that was sent has left for the client."""
        return self._real.get_write_buffer_size() > 0

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, unless the request should not have come so far; the connection ends with an early answer."""

        async def receive_or_raise() -> Message:
            message = await receive()
            if self._is_malformed:
                raise MalformedRequestError(_CRUMBS if self.conn.has_seen_crumbs else _NOT_HTTP)
            return message

        async def send_or_close(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_amid_upload():
                message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            await send(message)
            # So that whoever counts what an answer takes counts it until it has gone, or its reader is cut off.
            if self.flow.write_paused:
                await self.flow.drain()

        if is_malformed(scope):
            headers, body = self._refusal(400, "bad_request", _NOT_HTTP)
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._app(scope, receive_or_raise, send_or_close)

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer something that never became a request, and close."""
        headers, body = self._refusal(status, code, message)
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(body), h11.EndOfMessage()):
            self._real.write(self.conn.send(event) or b"")
        self._linger()

    def _refusal(self, status: int, code: str, message: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Headers and body of an answer that the app does not know of, counted and logged here instead."""
        error = ErrorBody(code=code, message=message, request_id=new_request_id())
        body = ErrorResponse(error=error).model_dump_json().encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", error.request_id.encode()),
            CLOSE_HEADER,
        ]
        if status == 503:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        self.registry.metrics.request_ended("other", status, 0.0, Trace(error_code=code))
        fields = {"request_id": error.request_id, "method": "other", "route": "other", "status": status, "error": code}
        logger.info("request", extra={"fields": fields})
        return headers, body

    def _watch_headers(self) -> None:
        """What arrives while no request is under way begins one."""
        if self._is_answering():
            self._header_clock.stop()
        elif not self.is_closing:
            self._header_clock.start(self.limits.header_timeout, self._give_up_on_headers)

    def _linger(self) -> None:
        """Close in one direction, and read on in the other for a while."""
        self.is_closing = True
        self._header_clock.stop()
        if not self._real.is_closing():
            self._real.write_eof()
            self.flow.resume_reading()
        seconds = max(_MIN_LINGER_S, self._body_deadline - self.loop.time())
        self._rest_clock.start(seconds, self._cut_off, "slow_rest")

    def _throw_away(self, count: int) -> None:
        self._rest_bytes -= count
        if self._rest_bytes < 0:
            self._cut_off("slow_rest")

    def _give_up_on_headers(self) -> None:
        self._header_clock.stop()
        # A request whose headers came in time may have begun since the clock started.
        if not self._is_answering():
            self._cut_off("slow_headers")

    def _cut_off(self, reason: str) -> None:
        self.registry.metrics.connections_closed.labels(reason=reason).inc()
        self._real.abort()

    def _note_turn(self) -> None:
        if self._is_answering() and not self.flow.write_paused:
            self.registry.works(self)
        else:
            self.registry.waits(self)

    def _is_amid_upload(self) -> bool:
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _is_answering(self) -> bool:
        cycle = getattr(self, "cycle", None)  # uvicorn's type says it is never None, and it begins so
        return cycle is not None and not cycle.response_complete


def is_malformed(scope: Scope) -> bool:
    """Whether a request is one that h11 lets pass and should not: of another HTTP than 1, or with an end on which
    two servers could disagree (RFC 9112, section 6.1).
    """
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names:
        return b"content-length" in names or scope["http_version"] != "1.1"
    return scope["http_version"] not in ("1.0", "1.1")


def protocol_with(limits: Limits, connections: Connections, retry_after_s: int) -> type[GuardedProtocol]:
    """The protocol of one port, as the class that uvicorn asks for."""
    bound = {"limits": limits, "registry": connections, "retry_after_s": retry_after_s}
    return type("Protocol", (GuardedProtocol,), bound)
