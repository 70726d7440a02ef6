"""Replacing the model while it serves, when an operator asks for it: one reload at a time. The model before answers
what it has begun.
"""

from __future__ import annotations

import asyncio
import logging

from model.hub.names import HubError
from model.runtime.artifact.file import ArtifactError
from service.errors import ModelRefusedError, ReloadingError, ServiceError
from service.lifecycle.host import ModelHost
from service.lifecycle.pipeline import Pipeline
from service.process.metrics import Metrics

logger = logging.getLogger(__name__)


class Reloader:
    """Loads a new model and hands it over. Used on the event loop."""

    def __init__(self, host: ModelHost, metrics: Metrics) -> None:
        self._host, self._metrics = host, metrics
        self._running = asyncio.Lock()
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    async def reload(self) -> None:
        """Load the model again, prove it, and let it take over. A name on the hub is asked for its commit again.

        Raises:
            ReloadingError: another reload runs.
            ModelRefusedError: the file or the device cannot be used; the old model serves on.
            StartingError, DrainingError: no model serves, before the new one is loaded or afterwards.
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
        await self._host.loaded()
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
        self._host.check_serving()
        try:
            warm = await self._host.load()
        except Exception as error:
            self._metrics.model_reloads.labels(result="refused").inc()
            logger.error("the model is not reloaded, the old one serves on", exc_info=error)
            raise _refusal(error) from error
        self._host.check_serving()
        self._host.take_over(warm)
        self._metrics.model_reloads.labels(result="replaced").inc()
        logger.info("reloaded: %s on %s", warm.model.metadata.name, ", ".join(warm.model.engines))


class Retirement:
    """Knows the pipelines whose model was replaced, and forgets each, its engine included, when it has finished."""

    def __init__(self, host: ModelHost) -> None:
        self._host = host
        self._finishing: dict[asyncio.Task[None], Pipeline] = {}

    def add(self, pipeline: Pipeline) -> None:
        """Let a pipeline finish what it has begun."""
        pipeline.retire()
        task = asyncio.create_task(self._finish(pipeline), name="finish")
        self._finishing[task] = pipeline
        task.add_done_callback(self._finishing.pop)

    async def close(self) -> None:
        """Fail whoever still waits for one of them."""
        await asyncio.gather(*(pipeline.batcher.close(0) for pipeline in self._finishing.values()))
        tasks = list(self._finishing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _finish(self, pipeline: Pipeline) -> None:
        await pipeline.finish()
        logger.info("the model before has finished")
        self._host.give_back_memory()


def _refusal(error: Exception) -> ModelRefusedError:
    """What is told of a reload that failed: a file's fault in our own words, and of the rest where to look."""
    if isinstance(error, ArtifactError) and isinstance(error.__cause__, ValueError | OSError | None):
        return ModelRefusedError(f"the model file was refused, {error}")
    if isinstance(error, HubError):
        return ModelRefusedError("the model cannot be had by its name; the log says why")
    return ModelRefusedError("the model cannot be opened on its device; the log says why")
