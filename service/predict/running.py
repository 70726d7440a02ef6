"""Pictures on the service's own way without HTTP: prepared in threads, run in the batches that the service forms, each
with what becomes of it as soon as that is there.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic

from service.batching.latency_line import LatencyLine
from service.errors import DrainingError, EngineRestartError
from service.images.task import Task
from service.lifecycle.loading import LoadedModel, ModelLoader
from service.lifecycle.pipeline import Pipeline
from service.lifecycle.service import Service
from service.lifecycle.warm_up import WarmModel
from service.predict.pictures import A, Answered, Failed, Outcome, P, RunPicture
from service.process.metrics import Metrics
from service.process.running_time import RunningLoop
from service.process.trace import Trace
from service.settings import Settings

_PATIENCE_S = 0.5


class PictureRunner:
    """A model that runs pictures. Several threads may do so at once, and then share batches.

    All that the service does for its images is done for these: large ones wait for each other, a batch for which there
    is no memory is run in parts, and an engine that fails is opened again.
    """

    def __init__(
        self, model: LoadedModel, lines: Mapping[str, LatencyLine], settings: Settings, loader: ModelLoader
    ) -> None:
        """Make a runner, which has a thread of its own.

        Args:
            model: that runs them.
            lines: what batches cost on each of its engines, by name.
            settings: limits, and the number of threads.
            loader: opens the engine again.
        """
        self.metadata, self.device = model.metadata, model.device
        # Those that decode, a batch in each engine, and two more of which the former can choose the next.
        self._room = settings.cpu_threads + (len(model.engines) + 2) * settings.max_batch_size
        self._runs: set[_Run[Any, Any]] = set()
        self._loop = RunningLoop()
        threading.Thread(target=_run_loop, args=(self._loop,), name="pipeline", daemon=True).start()
        self.service = self._in_loop(partial(_open, WarmModel(model, lines, None), settings, loader))
        runs = self._runs  # or the service would hold the runner, which then never ended

        def lose_all() -> None:
            for run in tuple(runs):
                run.lose()

        self.service.on_failure = lose_all
        self.close = weakref.finalize(self, _close, self.service, self._loop)
        self.close.atexit = False  # its threads end with the process

    def run(
        self,
        pictures: Iterable[P],
        task: Task,
        answer: Callable[[RunPicture[P]], A],
        *,
        draws: bool = False,
        in_order: bool = False,
    ) -> Generator[Outcome[P, A]]:
        """Run pictures; a few are under way at any time, so memory is bounded however many there are.

        Args:
            pictures: iterated in a thread, which may wait for the next one.
            task: what is asked of each; the answer itself is `answer`'s to make.
            answer: makes each answer, in a thread.
            draws: answers are drawn on the pictures.
            in_order: outcomes come in the order of their pictures, and not as soon as they are there.

        Returns:
            An outcome for each picture. If `pictures` raises, those of the pictures before come first.

        Raises:
            EngineRestartError: the engine is lost; what has no outcome by then gets none.
        """
        pipeline = self.check()
        run = _Run(pictures, self._room, partial(_outcome, pipeline, task, answer, draws), self._loop)
        self._runs.add(run)
        try:
            yield from run.outcomes(in_order=in_order)
        finally:
            run.end()
            self._runs.discard(run)

    def describe(self) -> bytes:
        """What `GET /model` says of the model."""
        return self.check().description

    def check(self) -> Pipeline:
        """What runs pictures. Raises EngineRestartError if the engine is lost, which only a new process cures."""
        pipeline = self.service.admission.current
        if self.service.is_lost or pipeline is None:
            raise _lost()
        return pipeline

    def _in_loop(self, call: Callable[[], Service]) -> Service:
        async def calling() -> Service:
            return call()

        return asyncio.run_coroutine_threadsafe(calling(), self._loop).result()


@dataclass(frozen=True)
class _End:
    """The pictures of a run have all begun."""

    count: int | None  # None while they have not
    failure: BaseException | None  # which ended them


class _Run(Generic[P, A]):
    """Pictures under way: begun by a thread of their own, run on the event loop, and taken by whoever wants them."""

    def __init__(
        self,
        pictures: Iterable[P],
        room: int,
        outcome: Callable[[int, P], Coroutine[None, None, Outcome[P, A]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._pictures, self._outcome, self._loop = pictures, outcome, loop
        self._room = threading.Semaphore(room)  # outcomes that nobody has taken take room, too
        self._results: SimpleQueue[Outcome[P, A] | _End | None] = SimpleQueue()  # None where the engine is lost
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_ended = False
        self._beginning = threading.Thread(target=self._begin_all, name="pictures", daemon=True)

    def outcomes(self, *, in_order: bool) -> Iterator[Outcome[P, A]]:
        """Begin the pictures, and take what becomes of them. Raises EngineRestartError."""
        self._beginning.start()
        early: dict[int, Outcome[P, A]] = {}
        taken, end = 0, _End(None, None)
        while taken != end.count:
            result = self._results.get()
            if result is None:
                raise _lost()
            if isinstance(result, _End):
                end = result
                continue
            early[result.number if in_order else taken] = result
            while taken in early:
                yield early.pop(taken)
                taken += 1
                self._room.release()
        if end.failure is not None:
            raise end.failure

    def lose(self) -> None:
        """Say that there is nothing more to come."""
        self._results.put(None)

    def end(self) -> None:
        """Begin no more, and leave what has begun."""
        self._is_ended = True
        self._room.release()
        self._beginning.join(_PATIENCE_S)  # it may wait for a picture that does not come
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])

    def _begin_all(self) -> None:
        number, failure = 0, None
        try:
            for number, picture in enumerate(self._pictures, start=1):
                self._room.acquire()
                if self._is_ended:
                    return
                self._loop.call_soon_threadsafe(self._begin, number - 1, picture)
        except BaseException as error:  # told to whoever takes the outcomes
            failure = error
        self._results.put(_End(number, failure))

    def _begin(self, number: int, picture: P) -> None:
        task = asyncio.create_task(self._put(number, picture))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put(self, number: int, picture: P) -> None:
        try:
            self._results.put(await self._outcome(number, picture))
        except (DrainingError, EngineRestartError):
            self.lose()


async def _outcome(
    pipeline: Pipeline,
    task: Task,
    answer: Callable[[RunPicture[P]], A],
    draws: bool,
    number: int,
    picture: P,
) -> Outcome[P, A]:
    """What becomes of a picture. Raises DrainingError and EngineRestartError, of which no picture is the cause."""
    trace = Trace()
    try:
        prepared, is_large = await pipeline.prepare(partial(picture.prepare, trace=trace, draws=draws))
        outputs = await pipeline.infer(prepared, task.mask_threshold, trace, math.inf, task.attention)
        run = RunPicture(number, picture, prepared, outputs, trace)
        answered = await pipeline.make_answer(partial(answer, run), is_large=is_large and draws)
    except (DrainingError, EngineRestartError):
        raise
    except Exception as error:
        return Failed(number, picture, error)
    return Answered(number, picture, answered, trace)


def _lost() -> EngineRestartError:
    return EngineRestartError("the engine is lost: it hung, or could not be opened again")


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _open(warm: WarmModel, settings: Settings, loader: ModelLoader) -> Service:
    """On the event loop."""
    service = Service(settings, Metrics(), loader)
    service.take_over(warm)
    return service


def _close(service: Service, loop: asyncio.AbstractEventLoop) -> None:
    async def closing() -> None:
        try:
            await service.stop()
        finally:
            loop.stop()

    asyncio.run_coroutine_threadsafe(closing(), loop)
