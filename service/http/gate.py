"""What stands between the server and the app: it keeps out what should not come in, before any body is read."""

from __future__ import annotations

import logging
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import CrowdedError, HeadersTooLargeError
from service.http.access import Access
from service.http.error_answers import error_response
from service.http.paths import HEALTH, takes_images
from service.lifecycle.in_flight import InFlight
from service.process.trace import trace_of

logger = logging.getLogger("service.request")

MAX_HEADERS = 100


class Gate:
    """ASGI middleware. It also answers what the app lets slip through."""

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        requests: InFlight[object],
        check_room: Callable[[Scope], None],
        max_header_bytes: int,
        max_requests: int,
        retry_after_s: int,
    ) -> None:
        """Guard an app.

        Args:
            app: what is guarded.
            access: knows the API keys.
            requests: in flight on this port, the one that is checked among them.
            check_room: raises what an upload is answered for which there is no room. Asked here, before the request
                is understood, because what a refusal costs is taken from the engine.
            max_header_bytes: of a request's target and headers.
            max_requests: in flight at once, health aside; fewer than connections, so that health gets through.
            retry_after_s: what Retry-After says on a 503.
        """
        self._app = app
        self._access = access
        self._requests = requests
        self._check_room = check_room
        self._max_header_bytes = max_header_bytes
        self._max_requests = max_requests
        self._retry_after_s = retry_after_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            await self._app(scope, receive, send)
        except Exception as error:
            await self._answer(error, scope, receive, send)

    def _check(self, scope: Scope) -> None:
        # The protocol sees the bound on bytes only where headers come in pieces.
        if header_bytes(scope) > self._max_header_bytes:
            raise HeadersTooLargeError(f"the request's headers have more than {self._max_header_bytes} bytes")
        if len(scope["headers"]) > MAX_HEADERS:
            raise HeadersTooLargeError(f"the request has more than {MAX_HEADERS} headers")
        self._access.check(scope)
        if self._requests.count > self._max_requests and scope["path"] not in HEALTH:
            raise CrowdedError("too many requests are under way, please try again later")
        if scope["method"] == "POST" and takes_images(scope["path"]):
            self._check_room(scope)

    async def _answer(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        trace = trace_of(scope)
        response = error_response(Request(scope), error, self._retry_after_s)
        if response.status_code == 500:
            logger.error("request %s failed", trace.request_id, exc_info=error)
        if trace.status:  # too late to say so
            raise error
        await response(scope, receive, send)


def header_bytes(scope: Scope) -> int:
    """About what a request's target and headers took on the wire."""
    target = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    return target + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
