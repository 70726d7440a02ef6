"""Replacing the model while it serves, when an operator asks for it: one reload at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from model.runtime.artifact.file import ArtifactError
from service.errors import ModelRefusedError, ReloadingError, ServiceError
from service.lifecycle.warm_up import WarmModel
from service.process.metrics import Metrics

logger = logging.getLogger(__name__)


class Reloader:
    """Loads a new model and hands it over. Used on the event loop."""

    def __init__(
        self,
        load: Callable[[], Awaitable[WarmModel]],
        take_over: Callable[[WarmModel], None],
        check: Callable[[], object],
        begun: Callable[[], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        """Make a reloader.

        Args:
            load: loads a model from where models come from.
            take_over: lets a model serve.
            check: raises ServiceError where no model is to be replaced, at the begin or at the end of a reload.
            begun: returns when the first model has loaded, or failed to.
            metrics: counts.
        """
        self._load, self._take_over, self._check = load, take_over, check
        self._begun, self._metrics = begun, metrics
        self._running = asyncio.Lock()
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    async def reload(self) -> None:
        """Load the model's file again, prove it, and let it take over.

        Raises:
            ReloadingError: another reload runs.
            ModelRefusedError: the file or the device cannot be used; the old model serves on.
            ServiceError: what `check` raises.
        """
        if self._running.locked():
            raise ReloadingError("the model is being reloaded already")
        async with self._running:
            await self._reload()

    def reload_soon(self) -> None:
        """Reload from a signal: what fails is only logged. If a reload runs, which may have read the file already,
        another one follows.
        """
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reload_while_wanted(), name="reload")

    async def close(self) -> None:
        """Reload no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _reload_while_wanted(self) -> None:
        await self._begun()
        while self._wanted:
            async with self._running:
                self._wanted = False
                try:
                    await self._reload()
                except ServiceError as error:
                    logger.warning("the model is not reloaded: %s", error)
                except Exception:  # nobody waits for this task, so what is not told here is told nowhere
                    logger.exception("the reload failed")

    async def _reload(self) -> None:
        self._check()
        try:
            warm = await self._load()
        except Exception as error:
            self._metrics.model_reloads.labels(result="refused").inc()
            logger.error("the model is not reloaded, the old one serves on", exc_info=error)
            raise _refusal(error) from error
        self._check()
        self._take_over(warm)
        self._metrics.model_reloads.labels(result="replaced").inc()
        logger.info("reloaded: %s on %s", warm.model.metadata.name, warm.model.engine.device)


def _refusal(error: Exception) -> ModelRefusedError:
    """What is told of a reload that failed: a file's fault in our own words, and of the rest where to look."""
    if isinstance(error, ArtifactError) and isinstance(error.__cause__, ValueError | OSError | None):
        return ModelRefusedError(f"the model file was refused, {error}")
    return ModelRefusedError("the model cannot be opened on its device; the log says why")
