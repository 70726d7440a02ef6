"""A client for asyncio, which the synchronous one drives."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self, TypeVar, overload

from detr_client.answers import Answer, DetectAnswer, SegmentAnswer
from detr_client.exchanges import Exchanges, checked_value
from detr_client.explanations import ExplainAnswer
from detr_client.replies import Classes, Mode, PointsXY, answer_of, explain_query_of, parsed, query_of
from detr_client.several import answer_all
from detr_client.sources import Source, is_many, picture_bytes

A = TypeVar("A", bound=Answer)


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
            api_key: sent as `Authorization: Bearer`, without the line break that a file may end with.
            deadline_s: seconds for one picture from its turn to its answer, with all retries and waits.
            retries: how often a request is sent again after a broken connection or a 429, 502 or 503. The server's
                `Retry-After` is waited for; where that would pass the deadline, the error is raised at once.
            concurrency: pictures of a list under way at once.
            jpeg_quality: send arrays and PIL images as JPEG of this quality, 1 to 95, and not as PNG, which is exact.
            headers: sent with each request.
            verify: as httpx takes it: True, or an `ssl.SSLContext` for certificates of one's own.

        Raises:
            ValueError: the URL is none, a number is out of its range, or a key or header cannot be sent.
        """
        if concurrency < 1:
            raise ValueError("concurrency has to be 1 or more")
        self._concurrency, self._jpeg_quality = concurrency, jpeg_quality
        key = {} if api_key is None else {"authorization": f"Bearer {checked_value('api_key', api_key)}"}
        more = {name: checked_value(f"the header {name}", value) for name, value in (headers or {}).items()}
        self._exchanges = Exchanges(url, more | key, verify, deadline_s, retries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the requests under way, which raise ClientClosedError, and close the connections; a later request
        opens new ones.
        """
        await self._exchanges.aclose()

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
            ClientClosedError: the client was closed meanwhile.
            IncompleteError: one of several pictures has no answer.
        """
        return await self.ask("detect", DetectAnswer, source, query_of(threshold, classes), bgr, progress)

    @overload
    async def segment(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self,
        source: Source,
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
    ) -> SegmentAnswer: ...

    @overload
    async def segment(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[SegmentAnswer]: ...

    async def segment(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        mode: Mode = "panoptic",
        polygons: bool = False,
        bgr: bool = False,
        progress: bool = False,
    ) -> SegmentAnswer | list[SegmentAnswer]:
        """Segment a picture, or several.

        Args:
            source: as in `detect`.
            threshold: as in `detect`.
            classes: as in `detect`.
            mode: "panoptic" for one segment for each pixel, "instance" for a mask for each object, which may overlap;
                that is things only, unless classes are asked for.
            polygons: have the outlines of segments as well, see `SegmentAnswer.polygons`.
            bgr: as in `detect`.
            progress: as in `detect`.

        Returns and raises what `detect` does, with answers that are a SegmentAnswer.
        """
        query = query_of(threshold, classes, mode, polygons)
        return await self.ask("segment", SegmentAnswer, source, query, bgr, progress)

    @overload
    async def explain(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self,
        source: Source,
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
    ) -> ExplainAnswer: ...

    @overload
    async def explain(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
        progress: bool = False,
    ) -> list[ExplainAnswer]: ...

    async def explain(
        self,
        source: Source | Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        query: int | None = None,
        points: PointsXY = (),
        bgr: bool = False,
        progress: bool = False,
    ) -> ExplainAnswer | list[ExplainAnswer]:
        """Find the objects in a picture, or in several, and where the network looked for each.

        Args:
            source: as in `detect`.
            threshold: as in `detect`; 1 finds no objects, and leaves the points.
            classes: as in `detect`.
            query: the only object query that is wanted, whatever its score.
            points: up to 20 points, x and y in pixels, whose maps are wanted, too.
            bgr: as in `detect`.
            progress: as in `detect`.

        Returns and raises what `detect` does, with answers that are an ExplainAnswer; a model whose file does not give
        its attention is a BadRequestError.
        """
        asked = explain_query_of(threshold, classes, query, points)
        return await self.ask("explain", ExplainAnswer, source, asked, bgr, progress)

    async def model(self) -> dict[str, Any]:
        """What `GET /model` answers: the model's name, classes, thresholds and device. Raises what `detect` does."""
        status, body = await self._exchanges.exchange("GET", "/model", None, {})
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
        """What `detect` and the others do, by the name of the path and the kind of the answer. Raises what they do."""
        ask_one = partial(self._ask_one, path, kind, query=query, bgr=bgr)
        if is_many(source):
            return await answer_all(ask_one, source, self._concurrency, progress)
        return await ask_one(source)  # type: ignore[arg-type]  # it is one

    async def _ask_one(self, path: str, kind: type[A], source: Source, *, query: dict[str, str], bgr: bool) -> A:
        picture = await asyncio.to_thread(picture_bytes, source, bgr=bgr, jpeg_quality=self._jpeg_quality)
        status, body = await self._exchanges.exchange("POST", f"/{path}", picture, query)
        return answer_of(kind, status, body)
