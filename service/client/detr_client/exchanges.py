"""Requests to a server, sent again where that is worthwhile, until they are answered, are too late, or are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from detr_client.answers import DetectAnswer
from detr_client.errors import ClientClosedError, NoServerError, RefusedError, TooLateError
from detr_client.replies import answer_of
from detr_client.retries import AGAIN, wait_before

# The server tells a picture's format by its bytes; this says that it is one.
_PICTURE = {"content-type": "image/*"}
_CONNECT_S = 10.0


class Exchanges:
    """With one server, over connections of one event loop."""

    def __init__(self, url: str, headers: Mapping[str, str], verify: Any, deadline_s: float, retries: int) -> None:
        """Open no connection yet. Raises ValueError if the URL is none, or a number is out of its range."""
        if deadline_s <= 0 or retries < 0:
            raise ValueError("deadline_s has to be above 0, and retries 0 or more")
        self._url = _checked(url)
        self._headers, self._verify = headers, verify
        self._deadline_s, self._retries = deadline_s, retries
        self._http: httpx.AsyncClient | None = None
        self._under_way: set[asyncio.Task[tuple[int, bytes]]] = set()

    async def aclose(self) -> None:
        """End the requests that are under way, which raise ClientClosedError; a later one opens new connections."""
        under_way = list(self._under_way)
        for request in under_way:
            request.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self._http is not None:
            http, self._http = self._http, None
            await http.aclose()

    async def exchange(self, method: str, path: str, picture: bytes | None, query: dict[str, str]) -> tuple[int, bytes]:
        """Send a request, again where that is worthwhile, and return the status and the body of the reply. It ends
        with the client.
        """
        request = asyncio.create_task(self._tries(method, path, picture, query))
        self._under_way.add(request)
        request.add_done_callback(self._under_way.discard)
        try:
            return await request
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling():
                raise
            raise ClientClosedError("the client was closed before there was an answer") from None

    async def _tries(self, method: str, path: str, picture: bytes | None, query: dict[str, str]) -> tuple[int, bytes]:
        """Send a request until there is a reply that is no invitation to come back.

        It may be sent again, because the server keeps nothing of it.
        """
        last: Exception | None = None
        try:
            async with asyncio.timeout(self._deadline_s) as deadline:
                for retry in range(self._retries + 1):
                    if retry:
                        wait_s = wait_before(retry, getattr(last, "retry_after", None))
                        left = (deadline.when() or 0) - asyncio.get_running_loop().time()
                        if wait_s >= left:
                            break
                        await asyncio.sleep(wait_s)
                    try:
                        response = await self._client().request(
                            method, self._url + path, content=picture, params=query, headers=_PICTURE if picture else {}
                        )
                    except httpx.TransportError as error:
                        last = _unreachable(self._url, error)
                        continue
                    if response.status_code not in AGAIN:
                        return response.status_code, response.content
                    last = _ComeBackError(response)
        except TimeoutError:
            told = "" if last is None else f"; before that: {_reason(last)}"
            raise TooLateError(f"{self._url} gave no answer within {self._deadline_s:g} s{told}") from last
        if isinstance(last, _ComeBackError):
            return last.response.status_code, last.response.content
        assert last is not None
        raise last

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers=self._headers,
                verify=self._verify,
                timeout=httpx.Timeout(None, connect=_CONNECT_S),  # the deadline bounds the whole
                # Connections end here before they end on the server, which keeps them for 5 s.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=3.0),
            )
        return self._http


class _ComeBackError(Exception):
    """A reply that asks to come back later."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code)
        self.response = response
        self.retry_after = response.headers.get("retry-after")


def _reason(error: Exception) -> str:
    if not isinstance(error, _ComeBackError):
        return str(error)
    try:
        answer_of(DetectAnswer, error.response.status_code, error.response.content)
    except RefusedError as refused:
        return str(refused)
    raise AssertionError("a reply to come back is no answer")


def _unreachable(url: str, error: httpx.TransportError) -> NoServerError:
    return NoServerError(f"{url} cannot be reached: {str(error) or type(error).__name__}")


def checked_value(name: str, value: str) -> str:
    """What is sent in a header, without spaces around it. Raises ValueError, which keeps it secret, if it cannot be."""
    plain = value.strip()
    if not (plain and plain.isascii() and plain.isprintable()):
        raise ValueError(f"{name} has to be one line of ASCII, and not empty")
    return plain


def _checked(url: str) -> str:
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = httpx.URL(whole)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"{url!r} is no URL of a server: give one such as http://localhost:8000")
    if parts.query or parts.fragment:
        raise ValueError(f"{url!r} has more than a server's URL: nothing may follow its path")
    return whole.rstrip("/")
