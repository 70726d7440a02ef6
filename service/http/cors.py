"""Cross-origin requests: which pages of other sites may read the answers of the service (the Fetch standard)."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import OriginError
from service.http.error_answers import error_response


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, with refusals in the service's one error shape.

    Cookies and remembered passwords are never asked for, so a page of another site acts with the keys it has itself,
    and `*` gives away nothing but what anybody can ask for.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str], retry_after_s: int) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "X-API-Key", "X-Request-ID"),
            expose_headers=("Retry-After", "Server-Timing", "X-Request-ID"),
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


def _is_preflight(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return scope["method"] == "OPTIONS" and {b"origin", b"access-control-request-method"} <= names
