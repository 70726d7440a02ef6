"""Pipelines whose model was replaced, until the requests that they had begun are answered."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor

from service.lifecycle.pipeline import Pipeline
from service.process.memory import give_back_freed

logger = logging.getLogger(__name__)


class Retirement:
    """Knows the old pipelines, and forgets each, its engine included, when it has finished."""

    def __init__(self, thread: Executor) -> None:
        """Use a thread to give their memory back."""
        self._thread = thread
        self._finishing: dict[asyncio.Task[None], Pipeline] = {}

    def add(self, pipeline: Pipeline) -> None:
        """Let a pipeline finish what it has begun."""
        task = asyncio.create_task(self._finish(pipeline), name="finish")
        self._finishing[task] = pipeline
        task.add_done_callback(self._forget)

    @property
    def is_stuck(self) -> bool:
        """Whether a thread is still in one of their engines."""
        return any(pipeline.batcher.engine.busy_seconds() > 0 for pipeline in self._finishing.values())

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
        await asyncio.get_running_loop().run_in_executor(self._thread, give_back_freed)

    def _forget(self, task: asyncio.Task[None]) -> None:
        pipeline = self._finishing[task]
        # A thread that hangs in its engine stays known, because it would hold up the end of the process.
        if pipeline.batcher.engine.busy_seconds() == 0:
            del self._finishing[task]
