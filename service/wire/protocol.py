"""HTTP/1.1 as uvicorn speaks it, with what it lacks: deadlines for headers and for reading an answer, a bound on
connections, an end to connections whose upload was refused half-way, and errors in the service's one shape.

uvicorn waits for the rest of a header without end, and as long for an answer to be read, so a client that sends or
reads one byte a second can hold a connection for as long as it likes, and the app never hears of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, ClassVar, cast

import h11
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import MalformedRequestError
from service.wire.bounded_connection import BoundedConnection
from service.wire.connections import Connections
from service.wire.deadlines import Clock, ConnectionLimits
from service.wire.lingering import LingeringTransport
from service.wire.refusals import CLOSE_HEADER, CROWDED, HEADERS_TOO_LARGE, NO_MEMORY, NOT_HTTP, Refusal, refuse
from service.wire.targets import accepted

# How long an answer takes before its client is asked whether it is still there, where that is in doubt, and then again.
_ASK_AFTER_S = 0.5
_END_OF_HEADERS = b"\r\n\r\n"
_WORTH_PASSING_BY = 4096  # bytes of a body, below which it is not worth a call
_SMALL_CHUNKS = "the body comes in too many small pieces; send kilobytes at a time"


class GuardedProtocol(H11Protocol):
    """One connection. h11 is chosen over httptools because it is strict, and bounds headers."""

    limits: ClassVar[ConnectionLimits]
    registry: ClassVar[Connections]
    retry_after_s: ClassVar[int]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn: BoundedConnection = BoundedConnection(self.limits.max_header_bytes)
        self._app = self.app
        self.app = self._run_app
        self._failure: Exception | None = None  # why the rest of a body cannot be read
        self._is_half_closed = False  # by the client, which sends nothing more
        self._header_clock = Clock(self.loop, self._give_up_on_headers)
        self._presence_clock = Clock(self.loop, self._ask_for_presence)
        self._out: LingeringTransport

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock of the first request's headers, if there is room for this connection."""
        metrics = self.registry.metrics
        self._out = LingeringTransport(transport, self.loop, self.limits, metrics, self._is_amid_upload)
        super().connection_made(cast("asyncio.Transport", self._out))
        self._watch_headers()
        if not self.registry.opened(self):
            self._refuse(CROWDED)

    def data_received(self, data: bytes) -> None:
        """Take data, and start or stop the clock by whether a request is being answered. What comes behind the last
        request is thrown away.
        """
        if self._out.is_closing() or self._failure is not None or self.conn.their_state is h11.MUST_CLOSE:
            return
        try:
            for part in self._parts(data):
                if self.conn.passes_by(part):
                    self._take_body(part)
                else:
                    super().data_received(part)
        except MemoryError as error:
            self._fail(error, NO_MEMORY)
        self._watch_headers()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer every request that has come whole, though the client sends nothing more; False closes at once."""
        if self._is_amid_upload() or self._out.is_closing():
            return False
        self._is_half_closed = True
        if self._is_answering():
            self._presence_clock.start(_ASK_AFTER_S)
        else:
            self._out.close()
        return True

    def pause_writing(self) -> None:
        """Start the clock of an answer that does not fit into the buffers."""
        super().pause_writing()
        self._out.wait_for_reader()
        self.registry.waits(self)

    def resume_writing(self) -> None:
        """Stop the clock, most of the answer having been read."""
        super().resume_writing()
        self._out.note_reader()
        if not self._out.is_closing():
            self._note_turn()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all clocks."""
        self._header_clock.stop()
        self._presence_clock.stop()
        self._out.lost()
        self.registry.closed(self)
        super().connection_lost(exc)

    # What uvicorn calls.

    def handle_events(self) -> None:
        """Note when a request begins."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._out.upload_deadline = self.loop.time() + self.limits.body_timeout
            self._note_turn()

    def on_response_complete(self) -> None:
        """Note whose turn it is next."""
        super().on_response_complete()
        self._note_turn()
        if self._is_half_closed and not self._is_answering() and not self._out.is_closing():
            self._out.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, or has headers beyond the bound, in the error shape."""
        error = MalformedRequestError(_SMALL_CHUNKS if self.conn.has_small_chunks else NOT_HTTP.message)
        self._fail(error, HEADERS_TOO_LARGE if self.conn.headers_are_too_large else NOT_HTTP)

    # What `Connections` calls.

    def make_room(self) -> None:
        """Close at once."""
        self._out.cut_off("room")

    def has_unread_answer(self) -> bool:
        """Whether not all that was sent has left for the client."""
        return self._out.has_unread_answer()

    def _parts(self, data: bytes) -> Iterator[bytes]:
        """The data, where a request begins and comes with its body as two parts: the headers, and what is behind."""
        end = data.find(_END_OF_HEADERS) + len(_END_OF_HEADERS) if self.conn.their_state is h11.IDLE else 0
        if end >= len(_END_OF_HEADERS) and len(data) - end >= _WORTH_PASSING_BY:
            yield data[:end]
            if not self._out.is_closing() and self._failure is None:
                yield data[end:]
        else:
            yield data

    def _take_body(self, data: bytes) -> None:
        """Hand on a part of a body as `handle_events` does, but without a copy where nothing else waits for the app."""
        if self.conn.our_state is not h11.DONE:  # else it is thrown away
            self.cycle.body = data if not self.cycle.body else self.cycle.body + data  # type: ignore[assignment]
            if len(self.cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            self.cycle.message_event.set()
        self.handle_events()

    async def _run_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, unless the request should not have come so far; the connection ends with an early answer."""

        async def receive_or_raise() -> Message:
            message = await receive()
            if self._failure is not None:
                raise self._failure
            return message

        async def send_or_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._out.hold_head()
                if self._is_amid_upload():
                    message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            await send(message)
            # So that whoever counts what an answer takes counts it until it has gone, or its reader is cut off.
            if self.flow.write_paused:
                await self.flow.drain()

        if (request := accepted(scope)) is not None:
            await self._app(request, receive_or_raise, send_or_close)
        else:
            headers, body = refuse(NOT_HTTP, self.registry.metrics, self.retry_after_s)
            await send({"type": "http.response.start", "status": NOT_HTTP.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _fail(self, error: Exception, refusal: Refusal) -> None:
        """Read no more: a body's error is raised in the app when it reads on, and anything else is refused."""
        if self._is_answering():
            self._failure = error
            self.cycle.message_event.set()
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer something that never became a request, and close."""
        headers, body = refuse(refusal, self.registry.metrics, self.retry_after_s)
        for event in (h11.Response(status_code=refusal.status, headers=headers), h11.Data(body), h11.EndOfMessage()):
            self._out.write(self.conn.send(event) or b"")
        # What it is, nobody knows; it may be an upload.
        self._out.upload_deadline = self.loop.time() + self.limits.body_timeout
        self._out.linger()

    def _watch_headers(self) -> None:
        """What arrives while no request is under way begins one."""
        if self._is_answering():
            self._header_clock.stop()
        elif not self._out.is_closing():
            self._header_clock.start(self.limits.header_timeout)

    def _give_up_on_headers(self) -> None:
        self._header_clock.stop()
        # A request whose headers came in time may have begun since the clock started, and so may the end.
        if not self._is_answering() and not self._out.is_closing():
            self._out.cut_off("slow_headers")

    def _ask_for_presence(self) -> None:
        """Send something to a client that sends nothing more: the system of one that has gone refuses it.

        Nothing else tells that from one that waits for its answer. Clients of HTTP/1.1 have to take an interim answer
        at any time (RFC 9110, section 15.2).
        """
        self._presence_clock.stop()
        is_asked = self._is_answering() and self.conn.our_state is h11.SEND_RESPONSE
        if is_asked and self.conn.their_http_version == b"1.1":
            interim = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._out.write(self.conn.send(interim) or b"")
            self._presence_clock.start(_ASK_AFTER_S)

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


def protocol_with(limits: ConnectionLimits, connections: Connections, retry_after_s: int) -> type[GuardedProtocol]:
    """The protocol of one port, as the class that uvicorn asks for."""
    bound = {"limits": limits, "registry": connections, "retry_after_s": retry_after_s}
    return type("Protocol", (GuardedProtocol,), bound)
