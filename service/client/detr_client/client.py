"""The client for programs without asyncio."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Self, TypeVar

from detr_client.answers import Answer
from detr_client.async_client import AsyncClient
from detr_client.detector import Detector
from detr_client.loop_thread import LoopThread
from detr_client.sources import Source

A = TypeVar("A", bound=Answer)
T = TypeVar("T")


class Client(Detector):
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
        """End the requests under way, which raise ClientClosedError, and close the connections; a later request
        opens new ones.
        """
        with self._lock:
            self._open = None
            if self._finalizer is not None:
                self._finalizer()

    def model(self) -> dict[str, Any]:
        """What `GET /model` answers: the model's name, classes, thresholds and device. Raises what `detect` does."""
        return self._run(lambda client: client.model())

    def _answer(
        self,
        task: str,
        kind: type[A],
        source: Source | Iterable[Source],
        query: dict[str, str],
        bgr: bool,
        progress: bool,
    ) -> A | list[A]:
        return self._run(lambda client: client.ask(task, kind, source, query, bgr, progress))

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
