"""ASGI middleware around every request, but for the gate: its trace and its line in the log, pages of other sites,
and HEAD.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection
from http import HTTPMethod
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import OriginError
from service.http.error_answers import error_response
from service.http.paths import ENDPOINTS, HEALTH, METRICS, cache_control, route_of
from service.lifecycle.in_flight import InFlight
from service.process.metrics import Metrics
from service.process.spans import EndedRequest, Spans
from service.process.trace import Trace, new_request_id

logger = logging.getLogger("service.request")

# Short and harmless in any log or header; what a client sends beyond that is replaced, not cleaned.
_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(HTTPMethod)
_NO_SPANS = HEALTH | {METRICS}  # asked for every few seconds, by machines


class RequestObserver:
    """Notes what becomes of each request, and decides nothing."""

    def __init__(self, app: ASGIApp, metrics: Metrics, requests: InFlight[object], spans: Spans | None = None) -> None:
        """Watch an app, whose `requests` are kept count of and, where that is wanted, told as `spans`."""
        self._app = app
        self._metrics = metrics
        self._requests = requests
        self._spans = spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and note how it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        clock = asyncio.get_running_loop().time
        trace = Trace(request_id(Headers(scope=scope)), clock)
        scope.setdefault("state", {})["trace"] = trace
        response = _Response(send, trace, scope["path"])
        started = clock()
        with self._requests.member(response):
            try:
                with trace.current():
                    await self._app(scope, receive, response.send)
            finally:
                self._note(scope, trace, response, started, clock())

    def _note(self, scope: Scope, trace: Trace, response: _Response, began: float, ended: float) -> None:
        path, seconds = route_of(scope["path"]), ended - began
        status = trace.status or 499  # without an answer, the client was gone or the service was stopped
        self._metrics.request_ended("other" if path is None else ENDPOINTS[path], status, seconds, trace)
        fields: dict[str, Any] = {
            "request_id": trace.request_id,
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": path or "other",
            "status": status,
            "duration_ms": round(1000 * seconds, 2),
            "received_bytes": trace.received_bytes,
            "sent_bytes": response.sent_bytes,
            "stages_ms": {name: round(1000 * spent, 2) for name, spent in tuple(trace.stages.items())},
            "batch_size": trace.batch_size,
            "error": trace.error_code,
        }
        if self._spans is not None and path not in _NO_SPANS:
            request = EndedRequest(fields["method"], fields["route"], status, Headers(scope=scope), began, ended)
            fields["trace_id"] = self._spans.note(trace, request)
        if trace.image_errors:
            fields["failed_images"] = len(trace.image_errors)
        if trace.library_warnings:
            fields |= {"library_warnings": trace.library_warnings, "library_warning": trace.library_warning}
        logger.info("request", extra={"fields": fields})


class _Response:
    """Passes the answer on with the headers that every answer has, and remembers what passed."""

    def __init__(self, send: Send, trace: Trace, path: str) -> None:
        self.sent_bytes = 0
        self._path = path
        self._send = send
        self._trace = trace

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._trace.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self._trace.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Cache-Control"] = cache_control(self._path, self._trace.status)
            if timing := self._trace.server_timing():
                headers["Server-Timing"] = timing
            # Boxes are of the upright image; who draws them over the stored one has to know how it was turned.
            if self._trace.orientation is not None:
                headers["Image-Orientation"] = str(self._trace.orientation)
        elif message["type"] == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        await self._send(message)


class CrossOrigin(CORSMiddleware):
    """Says which pages of other sites may read the answers (the Fetch standard): Starlette's middleware, with refusals
    in the service's one error shape.

    Cookies and remembered passwords are never asked for, so a page of another site acts with the keys it has itself,
    and `*` gives away nothing but what anybody can ask for.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], retry_after_s: int) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=("Image-Orientation", "Retry-After", "Server-Timing", "X-Request-ID"),
        )
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, which needs no key; pass anything else on."""
        if scope["type"] != "http" or not _is_preflight(scope):
            await super().__call__(scope, receive, send)
            return
        response = self.preflight_response(Headers(scope=scope))
        if response.status_code != 200:
            refusal = OriginError("this origin, method or header is not among those that other sites may use here")
            vary = {"Vary": response.headers["vary"]}
            response = error_response(Request(scope), refusal, self._retry_after_s)
            response.headers.update(vary)
        await response(scope, receive, send)


class HeadAsGet:
    """Answers HEAD with the status and the headers of GET, and no body (RFC 9110, 9.3.2).

    So HEAD, which load balancers and browsers ask with, works wherever GET does, and is refused wherever GET is.
    Whoever watches from outside still sees HEAD.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, as a GET if it is a HEAD."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, send_without_body)


def _is_preflight(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names


def request_id(headers: Headers) -> str:
    """The client's X-Request-ID if it is a sane one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _SANE_ID.fullmatch(given) else new_request_id()
