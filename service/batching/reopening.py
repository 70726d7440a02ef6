"""When an engine's session is opened again, because it fails image after image, and what becomes of that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from model.runtime.engines.engine import Engine
from service.batching.engine_thread import EngineThread
from service.batching.trouble import Trouble

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import DeviceMetrics

logger = logging.getLogger(__name__)

# Images that failed alone, in a row, after which the session is opened again. Sessions are known to fail for good after
# their device's memory ran out; other errors are more often an image's own.
REOPEN_AFTER: dict[Trouble, int] = {"memory": 2, "error": 8}


class Reopening:
    """Counts images that failed alone, and opens the session again, once until something succeeds. Used on the event
    loop.
    """

    def __init__(
        self, name: str, thread: EngineThread, metrics: DeviceMetrics, open_again: Callable[[str], Engine]
    ) -> None:
        """Watch over an engine of this name in its thread, in which `open_again` is called."""
        self.is_under_way = False
        self._name = name
        self._thread = thread
        self._metrics = metrics
        self._open_again = open_again
        self._failed_alone = 0  # images, in a row
        self._done = False  # since the last success

    def succeeded(self) -> None:
        """Note a batch that ran."""
        self._failed_alone, self._done = 0, False

    def is_due(self, trouble: Trouble) -> bool:
        """Note an image that failed alone; whether it is one too many, in which case opening counts as under way."""
        self._failed_alone += 1
        if self._failed_alone < REOPEN_AFTER[trouble] or self._done:
            return False
        logger.warning("%d images failed alone in a row: %s is opened again", self._failed_alone, self._name)
        self._done = self.is_under_way = True
        return True

    async def open(self) -> bool:
        """Open the session again; whether that succeeded."""
        try:
            await self._thread.reopen(lambda: self._open_again(self._name))
        except Exception:
            logger.exception("the engine %s cannot be opened again", self._name)
            self._metrics.engine_reopened("failed")
            return False
        finally:
            self.is_under_way = False
        logger.warning("the engine %s has been opened again", self._name)
        self._metrics.engine_reopened("opened")
        return True
