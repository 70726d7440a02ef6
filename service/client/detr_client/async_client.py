"""A client for asyncio, which the synchronous one drives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self, TypeVar, overload

import httpx

from detr_client.answers import Answer, DetectAnswer, SegmentAnswer
from detr_client.errors import NoServerError, RefusedError, TooLateError
from detr_client.replies import Classes, answer_of, parsed, query_of
from detr_client.retries import AGAIN, wait_before
from detr_client.several import answer_all
from detr_client.sources import Source, is_many, picture_bytes

A = TypeVar("A", bound=Answer)

# The server tells a picture's format by its bytes; this says that it is one.
_PICTURE = {"content-type": "image/*"}
_CONNECT_S = 10.0


class AsyncClient:
    """Asks a server of detr-serve, under asyncio. `Client` is the same without `await`.

    One client may be used by any number of tasks of one event loop at once. It is a context manager, or is closed by
    `aclose`.
    """

    def __init__(
        self,
        url: str = "http://localhost:8000",
        *,
        api_key: str | None = None,
        deadline_s: float = 60.0,
        retries: int = 5,
        concurrency: int = 8,
        jpeg_quality: int | None = None,
        headers: Mapping[str, str] | None = None,
        verify: Any = True,
    ) -> None:
        """Make a client; nothing is sent yet.

        Args:
            url: of the server; without a scheme it is taken for http.
            api_key: sent as `Authorization: Bearer`.
            deadline_s: seconds for one picture from its turn to its answer, with all retries and waits.
            retries: how often a request is sent again after a broken connection or a 429, 502 or 503. The server's
                `Retry-After` is waited for; where that would pass the deadline, the error is raised at once.
            concurrency: pictures of a list under way at once.
            jpeg_quality: send arrays and PIL images as JPEG of this quality, 1 to 95, and not as PNG, which is exact.
            headers: sent with each request.
            verify: as httpx takes it: True, or an `ssl.SSLContext` for certificates of one's own.

        Raises:
            ValueError: the URL is none, or a number is out of its range.
        """
        if deadline_s <= 0 or retries < 0 or concurrency < 1:
            raise ValueError("deadline_s has to be above 0, retries 0 or more, and concurrency 1 or more")
        self._url = _checked(url)
        self._deadline_s, self._retries, self._concurrency = deadline_s, retries, concurrency
        self._jpeg_quality = jpeg_quality
        key = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._headers, self._verify = {**(headers or {}), **key}, verify
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    @overload
    async def detect(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, source: Source, *, threshold: float | None = None, classes: Classes | None = None, bgr: bool = False
    ) -> DetectAnswer: ...

    @overload
    async def detect(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[DetectAnswer]: ...

    async def detect(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> DetectAnswer | list[DetectAnswer]:
        """Find the objects in a picture, or in several.

        Args:
            source: a path, the bytes of an image file, an open one, a PIL image or an array, uint8 [height, width, 3]
                in RGB; or several of these, of which `concurrency` are under way at once.
            threshold: answer what scores above this, 0 to 1; the default is the model's own.
            classes: answer these classes only, names or category ids; the default is all.
            bgr: arrays are in the order of OpenCV, BGR.
            progress: show a progress bar for several pictures, which takes tqdm.

        Returns:
            The answer; for several pictures a list of answers in their order.

        Raises:
            SourceError, OSError: the source is no picture, or its file cannot be read.
            RefusedError: the server refused or failed; see its subclasses.
            NoServerError, TooLateError, StrangeAnswerError: there is no server, no answer in time, or a strange one.
            IncompleteError: one of several pictures has no answer.
        """
        return await self.ask("detect", DetectAnswer, source, query_of(threshold, classes), bgr, progress)

    @overload
    async def segment(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, source: Source, *, threshold: float | None = None, classes: Classes | None = None, bgr: bool = False
    ) -> SegmentAnswer: ...

    @overload
    async def segment(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[SegmentAnswer]: ...

    async def segment(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> SegmentAnswer | list[SegmentAnswer]:
        """Segment a picture, or several; everything is as in `detect`."""
        return await self.ask("segment", SegmentAnswer, source, query_of(threshold, classes), bgr, progress)

    async def model(self) -> dict[str, Any]:
        """What `GET /model` answers: the model's name, classes, thresholds and device. Raises what `detect` does."""
        status, body = await self._exchange("GET", "/model", None, {})
        if status != 200:
            answer_of(DetectAnswer, status, body)  # raises what it says
        described: dict[str, Any] = parsed(status, body)
        return described

    async def ask(
        self,
        path: str,
        kind: type[A],
        source: Source | Iterable[Source],
        query: dict[str, str],
        bgr: bool,
        progress: bool,
    ) -> A | list[A]:
        """What `detect` and `segment` do, by the name of the path and the kind of the answer; raises what they do."""
        ask_one = partial(self._ask_one, path, kind, query=query, bgr=bgr)
        if is_many(source):
            return await answer_all(ask_one, source, self._concurrency, progress)
        return await ask_one(source)  # type: ignore[arg-type]  # it is one

    async def _ask_one(self, path: str, kind: type[A], source: Source, *, query: dict[str, str], bgr: bool) -> A:
        picture = await asyncio.to_thread(picture_bytes, source, bgr=bgr, jpeg_quality=self._jpeg_quality)
        status, body = await self._exchange("POST", f"/{path}", picture, query)
        return answer_of(kind, status, body)

    async def _exchange(
        self, method: str, path: str, picture: bytes | None, query: dict[str, str]
    ) -> tuple[int, bytes]:
        """Send a request, again where that is worthwhile, and return the status and the body of the reply.

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


def _checked(url: str) -> str:
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = httpx.URL(whole)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise ValueError(f"{url!r} is no URL of a server: give one such as http://localhost:8000")
    return whole.rstrip("/")
