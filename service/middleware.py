"""Around every request: its id, its trace, its metrics, its line in the log, and a bound on its headers."""

from __future__ import annotations

import logging
import re
import secrets
import time
from http import HTTPMethod

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import HeadersTooLargeError, error_response
from service.metrics import Metrics
from service.trace import Trace

logger = logging.getLogger("service.request")

# Short and harmless in any log or header; what a client sends beyond that is replaced, not cleaned.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(HTTPMethod)
# Labels are bounded: any other path is "other", whatever it says.
ENDPOINTS = {
    "/detect": "detect",
    "/segment": "segment",
    "/model": "model",
    "/metrics": "metrics",
    "/health/live": "live",
    "/v2/health/live": "live",
    "/health/ready": "ready",
    "/v2/health/ready": "ready",
    "/": "page",
    "/docs": "docs",
    "/openapi.json": "openapi",
}


class RequestObserver:
    """ASGI middleware. It also answers what the app lets slip through, so that no failure misses the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics, retry_after_s: int) -> None:
        self._app = app
        self._metrics = metrics
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = Trace(request_id=request_id(Headers(scope=scope)))
        scope.setdefault("state", {})["trace"] = trace
        response = _Response(send, trace)
        started = time.perf_counter()
        with self._metrics.requests_in_flight.track_inprogress():
            try:
                await self._app(scope, receive, response.send)
            except Exception as error:
                logger.exception("request %s failed", trace.request_id)
                if response.status:  # too late to say so
                    raise
                answer = error_response(Request(scope), error, self._retry_after_s)
                await answer(scope, receive, response.send)
            finally:
                self._note(scope, trace, response, time.perf_counter() - started)

    def _note(self, scope: Scope, trace: Trace, response: _Response, seconds: float) -> None:
        path = scope["path"]
        status = response.status or 499  # without an answer, the client was gone or the service was stopped
        self._metrics.request_ended(ENDPOINTS.get(path, "other"), status, seconds, trace)
        fields = {
            "request_id": trace.request_id,
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": path if path in ENDPOINTS else "other",
            "status": status,
            "duration_ms": round(1000 * seconds, 2),
            "received_bytes": trace.received_bytes,
            "sent_bytes": response.sent_bytes,
            "stages_ms": {name: round(1000 * spent, 2) for name, spent in tuple(trace.stages.items())},
            "batch_size": trace.batch_size,
            "error": trace.error_code,
        }
        logger.info("request", extra={"fields": fields})


class HeaderLimit:
    """ASGI middleware that refuses long headers; the protocol sees the bound only where they come in pieces."""

    def __init__(self, app: ASGIApp, max_bytes: int, retry_after_s: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if its headers are short enough."""
        app = self._app
        if scope["type"] == "http" and header_bytes(scope) > self._max_bytes:
            refusal = HeadersTooLargeError(f"the request's headers have more than {self._max_bytes} bytes")
            app = error_response(Request(scope), refusal, self._retry_after_s)
        await app(scope, receive, send)


class _Response:
    """Passes the answer on with the headers that every answer has, and remembers what passed."""

    def __init__(self, send: Send, trace: Trace) -> None:
        self.status = 0
        self.sent_bytes = 0
        self._send = send
        self._trace = trace

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._trace.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            if timing := self._trace.server_timing():
                headers["Server-Timing"] = timing
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)


def header_bytes(scope: Scope) -> int:
    """About what a request's target and headers took on the wire."""
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return target + sum(len(name) + len(value) + 4 for name, value in scope["headers"])


def request_id(headers: Headers) -> str:
    """The client's X-Request-ID if it is a sane one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else new_request_id()


def new_request_id() -> str:
    """An id that no other request has."""
    return secrets.token_hex(8)
