"""An event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from detr_client.errors import ClientClosedError

T = TypeVar("T")

_PATIENCE_S = 1.0  # for what ends by itself at a close


class LoopThread:
    """Runs coroutines for any number of other threads at once."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._lock, self._is_closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._loop.run_forever, name="detr-client", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Its result; if the caller is interrupted, so is the coroutine. Raises what it raises, or ClientClosedError
        where this was closed.
        """
        with self._lock:
            if self._is_closed:
                coroutine.close()
                raise ClientClosedError("the client was closed")
            future = self._begin(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise ClientClosedError("the client was closed before there was an answer") from None
        except BaseException:
            future.cancel()
            raise

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run one more coroutine, end what still runs, and end the loop and the thread."""
        with self._lock:
            self._is_closed = True
        self._begin(last).result()
        self._begin(self._cancel_others()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # those whose request has ended tell their callers what there is
            _, others = await asyncio.wait(others, timeout=_PATIENCE_S)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_default_executor()
