"""What lives as long as the app does: the thread pool, the model, and the phase the service is in."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal

from model.runtime.artifact.file import ArtifactError
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.engine import Engine
from service.batching.engine_runner import Rescue
from service.errors import DrainingError, StartingError
from service.images.answers import Content, Task
from service.lifecycle.admission import Admission
from service.lifecycle.idle import WhenIdle
from service.lifecycle.loading import reopen_engine
from service.lifecycle.pipeline import Pipeline
from service.lifecycle.reload import Reloader
from service.lifecycle.retirement import Retirement
from service.lifecycle.uploads import Upload, UploadMemory
from service.lifecycle.warm_up import WarmModel, load_and_warm_up
from service.process.memory import GIVE_BACK_AFTER_SECONDS, give_back_freed, memory_limit
from service.process.memory_budget import EngineMemory, memory_budget
from service.process.metrics import Metrics
from service.process.trace import Trace
from service.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

# A service that fails to load is about to exit; until then it is as unready as one that has just begun.
Phase = Literal["starting", "ready", "failed", "draining"]


class StartupError(Exception):
    """The service cannot start; the message is one line for whoever started it."""


class Service:
    """Loads the model in the background, so that health can be asked meanwhile, and ends by draining."""

    def __init__(self, settings: Settings, metrics: Metrics, engine: Engine | None = None) -> None:
        self.settings = settings
        self.metrics = metrics
        self.upload_memory = UploadMemory(settings.max_buffered_bytes)
        self.phase: Phase = "starting"
        self.failure: StartupError | None = None
        self.engine_lost = False  # only a new process helps
        # Whoever runs the service hooks in here, to end it.
        self.on_failure: Callable[[], None] = lambda: None
        self._engine = engine
        # One for all models that come after each other, so that together they take no more than one.
        self._admission = Admission(settings.max_batch_size + settings.max_queue_size)
        self._pipeline: Pipeline | None = None
        self._cpu = ThreadPoolExecutor(settings.cpu_threads, thread_name_prefix="cpu")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._retired = Retirement(self._loader)
        # What keeps it from being idle is for the requests to say.
        self.idle = WhenIdle(GIVE_BACK_AFTER_SECONDS, self._give_back)
        self._in_loader: concurrent.futures.Future[WarmModel] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._memory: EngineMemory | None = None
        self.reloader = Reloader(self._load, self._open, self.pipeline, self.loaded, metrics)
        metrics.engine_stalled.set_function(lambda: self._pipeline is not None and self._pipeline.is_stalled)

    async def start(self) -> None:
        """Begin to load the model, and return at once."""
        self._loading = asyncio.create_task(self._load_first(), name="load")

    async def loaded(self) -> None:
        """Return when the model has loaded or failed to."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    def pipeline(self) -> Pipeline:
        """The way in for requests.

        Raises:
            StartingError, DrainingError: it is not open yet, or no longer.
        """
        if self.phase == "draining":
            raise DrainingError("the service is shutting down")
        if self._pipeline is None:
            raise StartingError("the model is still loading")
        return self._pipeline

    def check_ready(self) -> None:
        """Raise UnavailableError, saying why, unless requests can be answered now."""
        self.pipeline().check()

    def check_room(self) -> None:
        """Raise UnavailableError, saying why, unless a request would be let in now."""
        self.check_ready()
        self._admission.check()

    async def answer(self, upload: Upload, make_task: Callable[[Metadata], Task], trace: Trace) -> Content:
        """Answer one image by the model that serves now, which may be another than when its upload began.

        Raises:
            ServiceError: see `Pipeline.answer`.
        """
        return await self.pipeline().answer(upload, make_task, trace)

    def begin_drain(self) -> None:
        """Refuse new work from now on. May be called from a signal handler."""
        self.phase = "draining"
        self._admission.close()

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait for the requests that were accepted, then fail the rest; True if there was no rest."""
        self.begin_drain()
        if self._pipeline is None:
            return True
        self._pipeline.batcher.hurry()
        if self.engine_lost:  # what waits for it waits in vain
            await self._pipeline.batcher.close(0)
        finished = True
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._admission.wait_until_empty()
        except TimeoutError:
            finished = False
        # Who is still uploading was not accepted yet, and whatever the engines still compute is for nobody now.
        self.upload_memory.end_uploads()
        await self._pipeline.batcher.close(0)
        await self._retired.close()
        return finished

    async def stop(self) -> None:
        """Drain unless that is done, and let go of the threads."""
        await self.drain(self.settings.drain_timeout_ms / 1000)
        await self.reloader.close()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        for pool in (self._cpu, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)

    def is_stuck(self) -> bool:
        """Whether a thread is still in an engine or the loader, which only the process's end can end."""
        loading = self._in_loader is not None and not self._in_loader.done()
        pipeline = self._pipeline
        return (
            loading or self._retired.is_stuck or (pipeline is not None and pipeline.batcher.engine.busy_seconds() > 0)
        )

    async def _load_first(self) -> None:
        try:
            warm = await self._load()
        except (ArtifactError, DeviceError, DeviceMemoryError, SettingsError) as error:
            self._fail(StartupError(str(error)))
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self._fail(StartupError(f"the model cannot be loaded: {type(error).__name__}"))
        else:
            self._open(warm)
            if self.phase == "starting":  # and not asked to stop while it loaded
                self.phase = "ready"
                logger.info("ready: %s on %s", warm.model.metadata.name, warm.model.engine.device)

    async def _load(self) -> WarmModel:
        self._in_loader = self._loader.submit(load_and_warm_up, self.settings, self._engine)
        try:
            return await asyncio.wrap_future(self._in_loader)
        finally:
            if self._in_loader.done():
                self._in_loader = None  # or it would keep the model

    def _open(self, warm: WarmModel) -> None:
        """Let a model take over from whatever served before it."""
        old = self._pipeline
        rescue = Rescue(
            partial(reopen_engine, self.settings, warm.model.digest, self._engine),
            lambda: self._lose_engine(pipeline),
            self.settings.engine_hang_exit_ms / 1000 or None,
        )
        pipeline = Pipeline(
            warm.model, self.settings, self.metrics, self._cpu, self._admission, warm.line, rescue
        )  # fmt: skip
        self._pipeline = pipeline
        self.metrics.describe_model(warm.model.metadata, warm.model.engine.device, warm.model.engine.precision)
        if warm.memory is not None:
            self._memory = warm.memory.after(self._memory)
            budget = memory_budget(self.settings, warm.model.metadata, self._memory)
            self.metrics.memory_budget.set(budget.total)
            budget.tell(memory_limit(), self._memory.reload)
        if old is not None:
            self._retired.add(old)

    def _lose_engine(self, pipeline: Pipeline) -> None:
        if pipeline is self._pipeline:  # else it was replaced, and nobody needs it
            self.engine_lost = True
            self.begin_drain()
            self.on_failure()

    def _give_back(self) -> None:
        if self.phase != "draining":  # when the end gives back everything, and the thread may be gone
            self._loader.submit(give_back_freed)

    def _fail(self, failure: StartupError) -> None:
        self.failure = failure
        self.phase = "failed"
        self.on_failure()
