"""What lives as long as the app does: the thread pools, the models that serve one after another, and who is let in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from model.hub.names import HubError
from model.runtime.artifact.file import ArtifactError
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.engine import Engine
from service.images.task import Content, Task
from service.lifecycle.admission import Admission
from service.lifecycle.cpu_pool import CpuPool
from service.lifecycle.in_flight import InFlight
from service.lifecycle.loading import ModelLoader
from service.lifecycle.pipeline import Pipeline
from service.lifecycle.reload import Reloader, Retirement
from service.lifecycle.uploads import Upload, UploadMemory
from service.lifecycle.warm_up import WarmModel, load_and_warm_up
from service.process.memory import GIVE_BACK_AFTER_SECONDS, give_back_freed, memory_limit
from service.process.memory_budget import EngineMemory, memory_budget
from service.process.metrics import Metrics
from service.process.trace import Trace
from service.settings import Settings, SettingsError

logger = logging.getLogger(__name__)


class StartupError(Exception):
    """The service cannot start; the message is one line for whoever started it."""


class Service:
    """Loads the model in the background, so that health can be asked meanwhile, and ends by draining."""

    def __init__(self, settings: Settings, metrics: Metrics, loader: ModelLoader) -> None:
        self.settings = settings
        self.metrics = metrics
        self.requests: InFlight[object] = InFlight()  # of all ports
        self.upload_memory = UploadMemory(settings.max_buffered_bytes)
        # One for all models that come after each other, so that together they take no more than one.
        self._cpu = CpuPool(
            settings.cpu_threads, settings.request_timeout_ms / 1000, settings.hang_seconds, self._decoder_lost
        )
        self.admission = Admission(self._cpu)
        self.reloader = Reloader(self, metrics)
        self.failure: StartupError | None = None
        self.is_lost = False  # an engine or a decoder hangs, and only a new process helps
        self._no_delay = asyncio.Event()  # nobody can be served while the end is delayed
        # Whoever runs the service hooks in here: before the first request is taken, and to end it.
        self.on_loaded: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self._model_loader = loader
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._retired = Retirement(self)
        self._loading: asyncio.Task[None] | None = None
        self._memory: EngineMemory | None = None
        self.upload_memory.in_flight.when_idle(GIVE_BACK_AFTER_SECONDS, self.give_back_memory)
        metrics.requests_in_flight.set_function(lambda: self.requests.count)
        metrics.images_in_flight.set_function(lambda: self.admission.in_flight.count)
        metrics.engine_stalled.set_function(lambda: self.admission.is_stalled)
        metrics.decoders_overdue.set_function(lambda: self._cpu.overdue)

    async def start(self) -> None:
        """Begin to load the model, and return at once."""
        self._loading = asyncio.create_task(self._load_first(), name="load")

    async def answer(
        self, upload: Upload, make_task: Callable[[Metadata], Task], trace: Trace
    ) -> Content | list[Content | Exception]:
        """Answer an upload by the model that serves now, which may be another than when it began to arrive.

        Raises:
            ServiceError, ImageError, OutputError: see `Admission.admit` and `Pipeline.answer`.
        """
        pipeline, task = self.admission.admit(make_task)
        return await pipeline.answer(upload, task, trace)

    def begin_drain(self) -> None:
        """Be ready no more, and refuse new work or leave that to `delay_drain`. May be called from a signal handler."""
        self.admission.leave()
        if not self.settings.drain_delay_ms:
            self.admission.close()

    async def delay_drain(self) -> None:
        """Take work for `drain_delay_ms` yet, unless none can be done, and then no more."""
        if self.admission.current is not None and not self.admission.is_closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.drain_delay_ms / 1000):
                    await self._no_delay.wait()
        self.admission.close()

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait for the requests that were accepted, then fail the rest; True if there was no rest."""
        self.admission.close()
        if (pipeline := self.admission.current) is None:
            return True
        pipeline.batcher.hurry()
        if pipeline.batcher.engines.is_lost:  # what waits for it waits in vain
            await pipeline.batcher.close(0)
        finished = True
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.admission.in_flight.wait_until_empty()
        except TimeoutError:
            finished = False
        # Who is still uploading was not accepted yet, and whatever the engines still compute is for nobody now.
        self.upload_memory.end_uploads()
        await pipeline.batcher.close(0)
        await self._retired.close()
        self._cpu.close()
        return finished

    async def stop(self) -> None:
        """Drain unless that is done, and let go of the threads."""
        await self.drain(self.settings.drain_timeout_ms / 1000)
        await self.reloader.close()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        self._cpu.close()
        self._loader.shutdown(wait=False, cancel_futures=True)

    # What the parts of the service ask of it, which is their ModelHost.

    async def loaded(self) -> None:
        """Return when the first model has loaded, or failed to."""
        if self._loading is not None:
            await asyncio.shield(self._loading)

    def check_serving(self) -> None:
        """Raise StartingError or DrainingError, unless a model serves."""
        self.admission.pipeline()

    async def load(self) -> WarmModel:
        """Load a model in a thread, and warm it up. Raises what `load_and_warm_up` raises."""
        clock = asyncio.get_running_loop().time
        return await asyncio.wrap_future(
            self._loader.submit(load_and_warm_up, self.settings, self._model_loader, clock)
        )

    def take_over(self, warm: WarmModel) -> None:
        """Let a model serve in place of the one before, if there was one."""
        old = self.admission.current
        pipeline = Pipeline(warm, self.settings, self.metrics, self._cpu, self.admission.in_flight, self)
        self.admission.serve(pipeline, self.settings.capacity(len(warm.model.engines)))
        self.metrics.describe_model(warm.model.metadata, warm.model.device, warm.model.precision)
        if warm.memory is not None:
            self._memory = warm.memory.after(self._memory)
            budget = memory_budget(self.settings, warm.model.metadata, self._memory)
            self.metrics.memory_budget.set(budget.total)
            budget.tell(memory_limit(), self._memory.reload)
        if old is not None:
            self._retired.add(old)

    def check_room(self, images: int) -> None:
        """See ModelHost."""
        self.admission.check_room(images)

    def reopen(self, digest: str, name: str) -> Engine:
        """See `ModelLoader.reopen`."""
        return self._model_loader.reopen(digest, name)

    def engine_lost(self) -> None:
        """End, because the last engine that serves is lost."""
        self.is_lost = True
        self.admission.close()
        self._no_delay.set()
        self.on_failure()

    def give_back_memory(self) -> None:
        """Give the system back what has been freed, in a thread."""
        if not self.admission.is_closed:  # when the end gives back everything, and the thread may be gone
            self._loader.submit(give_back_freed)

    def _decoder_lost(self) -> None:
        logger.critical("a decoder is lost: it has been at one image for %g s", self.settings.hang_seconds)
        self.engine_lost()

    async def _load_first(self) -> None:
        try:
            warm = await self.load()
        except (HubError, ArtifactError, DeviceError, DeviceMemoryError, SettingsError) as error:
            self._fail(StartupError(str(error)))
        except Exception as error:
            logger.exception("the model cannot be loaded")
            self._fail(StartupError(f"the model cannot be loaded: {type(error).__name__}"))
        else:
            self.on_loaded()
            self.take_over(warm)
            if not self.admission.is_closed:  # by who asked to stop while it loaded
                logger.info("ready: %s on %s", warm.model.metadata.name, ", ".join(warm.model.engines))

    def _fail(self, failure: StartupError) -> None:
        self.failure = failure
        self.on_failure()
