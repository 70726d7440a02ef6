"""What lives as long as the app does: the thread pool, the model, and the phase the service is in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from model.runtime.artifact import ArtifactError
from model.runtime.engine import DeviceError, Engine
from service.engine_timing import measure_line
from service.errors import DrainingError, StalledError, StartingError
from service.latency_line import UNMEASURED, LatencyLine
from service.loading import LoadedModel, load_model
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.settings import Settings, SettingsError
from service.upload import UploadMemory

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
        self.on_failure: Callable[[], None] = lambda: None  # whoever runs the service hooks in here
        self._engine = engine
        self._pipeline: Pipeline | None = None
        self._cpu = ThreadPoolExecutor(settings.cpu_threads, thread_name_prefix="cpu")
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._loading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to load the model, and return at once."""
        self._loading = asyncio.create_task(self._load(), name="load")

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
        busy_seconds = self.pipeline().batcher.busy_seconds()
        if busy_seconds > self.settings.engine_stall_ms / 1000:
            raise StalledError(f"the engine has been in one batch for {busy_seconds:.0f} s")

    def begin_drain(self) -> None:
        """Refuse new work from now on. May be called from a signal handler."""
        self.phase = "draining"
        if self._pipeline is not None:
            self._pipeline.admission.close()

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait for the requests that were accepted, then fail the rest; True if there was no rest."""
        self.begin_drain()
        if self._pipeline is None:
            return True
        self._pipeline.batcher.hurry()
        finished = True
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._pipeline.admission.wait_until_empty()
        except TimeoutError:
            finished = False
        # Whatever the engine still computes is for nobody now.
        await self._pipeline.batcher.close(0)
        return finished

    async def stop(self) -> None:
        """Drain unless that is done, and let go of the threads."""
        await self.drain(self.settings.drain_timeout_ms / 1000)
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        for pool in (self._cpu, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)

    def is_stuck(self) -> bool:
        """Whether a thread is still in the engine or the loader, which only the process's end can end."""
        loading = self.phase == "draining" and self._pipeline is None and self.failure is None
        return loading or (self._pipeline is not None and self._pipeline.batcher.busy_seconds() > 0)

    async def _load(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            model, line = await loop.run_in_executor(self._loader, self._load_and_time)
        except (ArtifactError, DeviceError, SettingsError) as error:
            self._fail(StartupError(str(error)))
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self._fail(StartupError(f"the model cannot be loaded: {type(error).__name__}"))
        else:
            self._open(model, line)

    def _load_and_time(self) -> tuple[LoadedModel, LatencyLine]:
        """Load the model and learn what its batches cost; in the loader's thread."""
        model = load_model(self.settings, self._engine)
        if self._engine is not None or self.settings.batch_timing_ms == 0:
            return model, UNMEASURED
        limits = self.settings.max_batch_size, self.settings.max_batch_pixels
        budget_seconds = self.settings.batch_timing_ms / 1000
        return model, measure_line(model.engine, model.metadata.resize, *limits, budget_seconds)

    def _open(self, model: LoadedModel, line: LatencyLine) -> None:
        self._pipeline = Pipeline(model, self.settings, self.metrics, self._cpu, line)
        self.metrics.describe_model(model.metadata, model.engine.device)
        if self.phase == "draining":  # asked to stop while it loaded
            self._pipeline.admission.close()
            return
        self.phase = "ready"
        logger.info("ready: %s on %s", model.metadata.name, model.engine.device)

    def _fail(self, failure: StartupError) -> None:
        self.failure = failure
        self.phase = "failed"
        self.on_failure()
