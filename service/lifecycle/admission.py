"""Who is let in, and the one place that knows every reason why not."""

from __future__ import annotations

from collections.abc import Callable

from model.runtime.artifact.metadata import Metadata
from service.errors import DrainingError, QueueFullError, StartingError
from service.images.task import Task
from service.lifecycle.cpu_pool import CpuPool
from service.lifecycle.in_flight import InFlight
from service.lifecycle.pipeline import Pipeline


class Admission:
    """Knows the model that serves, and how many images are in flight. Used on the event loop.

    An upload is checked twice: before its body is read, so that one that would be refused costs nothing, and when it
    has been received. Only then it counts, until its answer is made; so decoding, waiting images and encoding are
    bounded by the same number. With room for a batch in each engine and the queue behind them, of `capacity + k`
    uploads that are received at once exactly k are refused, in whatever order they arrive. An upload of several images
    counts as one until it is known how many there are, and is then refused as a whole if there is no room for all of
    them.
    """

    def __init__(self, cpu: CpuPool) -> None:
        """Let nobody in before there is a model, and then no more than `capacity` uploads at once, of all models, while
        there is a thread of `cpu` for them.
        """
        self.capacity = 0  # until there is a model
        self.in_flight: InFlight[object] = InFlight()
        self.current: Pipeline | None = None  # of the model that was loaded last
        self.is_leaving = False
        self.is_closed = False
        self._cpu = cpu

    def serve(self, pipeline: Pipeline, capacity: int) -> None:
        """Let in who comes to this model from now on, no more than so many at once."""
        self.current, self.capacity = pipeline, capacity

    def leave(self) -> None:
        """Be ready no more, and let in who comes all the same. May be called from a signal handler."""
        self.is_leaving = True

    def close(self) -> None:
        """Let nobody in any more. May be called from a signal handler."""
        self.is_closed = True

    @property
    def is_stalled(self) -> bool:
        """Whether no engine of the model that serves takes batches, one being stuck for too long."""
        return self.current is not None and self.current.batcher.engines.is_stalled

    def pipeline(self) -> Pipeline:
        """The pipeline of the model that serves.

        Raises:
            DrainingError, StartingError: there is none any more, or not yet.
        """
        if self.is_closed:
            raise DrainingError("the service is shutting down")
        if self.current is None:
            raise StartingError("the model is still loading")
        return self.current

    def check_ready(self) -> None:
        """Raise UnavailableError, saying why, unless requests can be answered now and for a while."""
        pipeline = self.pipeline()
        if self.is_leaving:
            raise DrainingError("the service is shutting down")
        self._check_threads(pipeline)

    def admit(self, make_task: Callable[[Metadata], Task]) -> tuple[Pipeline, Task]:
        """What answers an upload, and by what task, if it is let in now. It counts from `Pipeline.answer` on.

        Raises:
            ServiceError: what `make_task` raises of a model that cannot do this.
            UnavailableError: why not.
        """
        pipeline = self.pipeline()
        task = make_task(pipeline.metadata)
        self._check_threads(pipeline)
        self.check_room(1)
        return pipeline, task

    def check_room(self, images: int) -> None:
        """Raise QueueFullError unless there is room for so many images more, as far as there is a model."""
        if self.current is not None and self.in_flight.count + images > self.capacity:
            raise QueueFullError("the queue is full, please try again later")

    def _check_threads(self, pipeline: Pipeline) -> None:
        """Raise UnavailableError unless an engine and decoders run: without, requests would wait for their deadline."""
        pipeline.batcher.engines.check()
        self._cpu.check()
