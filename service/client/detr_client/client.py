"""The client for programs without asyncio."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Self, TypeVar, overload

from detr_client.answers import DetectAnswer, SegmentAnswer
from detr_client.async_client import AsyncClient
from detr_client.loop_thread import LoopThread
from detr_client.replies import Classes
from detr_client.sources import Source

T = TypeVar("T")


class Client:
    """Asks a server of detr-serve.

    One client may be used by any number of threads at once, and after a fork. It is a context manager, or is closed by
    `close`, or when the program ends.
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
        """Make a client; nothing is sent yet. The arguments are those of `AsyncClient`."""

        def make() -> AsyncClient:
            return AsyncClient(
                url,
                api_key=api_key,
                deadline_s=deadline_s,
                retries=retries,
                concurrency=concurrency,
                jpeg_quality=jpeg_quality,
                headers=headers,
                verify=verify,
            )

        make()  # raises what is wrong with the arguments
        self._make, self._lock = make, threading.Lock()
        self._open: tuple[int, AsyncClient, LoopThread] | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the requests that are under way, and close the connections; a later request opens new ones."""
        with self._lock:
            self._open = None
            if self._finalizer is not None:
                self._finalizer()

    @overload
    def detect(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, source: Source, *, threshold: float | None = None, classes: Classes | None = None, bgr: bool = False
    ) -> DetectAnswer: ...

    @overload
    def detect(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[DetectAnswer]: ...

    def detect(self, source: Source | Iterable[Source], **options: Any) -> DetectAnswer | list[DetectAnswer]:
        """Find the objects in a picture, or in several.

        Args:
            source: a path, the bytes of an image file, an open one, a PIL image or an array, uint8 [height, width, 3]
                in RGB; or several of these, of which `concurrency` are under way at once.
            **options: `threshold`: answer what scores above this, 0 to 1; the default is the model's own.
                `classes`: answer these classes only, names or category ids; the default is all.
                `bgr`: arrays are in the order of OpenCV, BGR.
                `progress`: show a progress bar for several pictures, which takes tqdm.

        Returns:
            The answer; for several pictures a list of answers in their order.

        Raises:
            SourceError, OSError: the source is no picture, or its file cannot be read.
            RefusedError: the server refused or failed; see its subclasses.
            NoServerError, TooLateError, StrangeAnswerError: there is no server, no answer in time, or a strange one.
            IncompleteError: one of several pictures has no answer.
        """

        def ask(client: AsyncClient) -> Coroutine[Any, Any, DetectAnswer | list[DetectAnswer]]:
            return client.detect(source, **options)

        return self._run(ask)

    @overload
    def segment(  # type: ignore[overload-overlap]  # a str is an iterable of str
        self, source: Source, *, threshold: float | None = None, classes: Classes | None = None, bgr: bool = False
    ) -> SegmentAnswer: ...

    @overload
    def segment(
        self,
        source: Iterable[Source],
        *,
        threshold: float | None = None,
        classes: Classes | None = None,
        bgr: bool = False,
        progress: bool = False,
    ) -> list[SegmentAnswer]: ...

    def segment(self, source: Source | Iterable[Source], **options: Any) -> SegmentAnswer | list[SegmentAnswer]:
        """Segment a picture, or several; everything is as in `detect`."""

        def ask(client: AsyncClient) -> Coroutine[Any, Any, SegmentAnswer | list[SegmentAnswer]]:
            return client.segment(source, **options)

        return self._run(ask)

    def model(self) -> dict[str, Any]:
        """What `GET /model` answers: the model's name, classes, thresholds and device. Raises what `detect` does."""
        return self._run(lambda client: client.model())

    def _run(self, ask: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            # A process that was forked has no thread of its parent's, and must not share its connections.
            if self._open is None or self._open[0] != os.getpid():
                self._open = (os.getpid(), self._make(), LoopThread())
                self._finalizer = weakref.finalize(self, _close, *self._open)
            _, client, thread = self._open
        return thread.run(ask(client))


def _close(pid: int, client: AsyncClient, thread: LoopThread) -> None:
    if pid == os.getpid():
        thread.close(client.aclose())
