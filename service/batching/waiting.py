"""An image on its way through the engine: what it is, what is said about it, and whoever waits for that."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.runtime.engines.raw_outputs import ImageOutputs
from service.batching.former import QueuePlace


@dataclass(frozen=True)
class EngineInput:
    """One image for the engine."""

    image: NDArray[np.uint8]  # [h, w, 3], RGB, resized
    mask_threshold: float  # see the graph's input of that name
    attention: bool = False  # whether its outputs are to have it


@dataclass(frozen=True)
class Inference:
    """What the engine said about one image, and what it took."""

    outputs: ImageOutputs
    device: str  # what the engine is called that ran it
    batch_size: int  # images in the batch
    queue_seconds: float  # from submission until its batch began
    infer_seconds: float  # running the batch, and making its canvas where that was not done before


@dataclass(eq=False)
class Waiting:
    """An image that waits, and the future that its submitter awaits, until it is done."""

    item: EngineInput
    place: QueuePlace  # its times are the event loop's
    future: asyncio.Future[Inference]
    # The engine that failed on it, which does not get it again, and what it gets if no other answers it.
    failed_on: str | None = None
    error: Exception | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has its answer, or whoever waited for it has gone."""
        return self.future.done()

    def is_wanted(self, now: float) -> bool:
        """Whether an engine should begin with it at this time. Any thread may ask."""
        return not self.is_done and self.place.deadline > now

    def answer(self, inference: Inference) -> None:
        """Give it its answer, unless it has one or nobody waits any more."""
        if not self.is_done:
            self.future.set_result(inference)

    def fail(self, error: Exception) -> None:
        """The same with an error in place of an answer."""
        if not self.is_done:
            self.future.set_exception(error)


Members = tuple[Waiting, ...]  # of a batch
