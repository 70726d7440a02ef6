"""The batch that an engine begins by itself, as soon as it has ended the one before.

For the event loop to learn that a batch has ended, and for the engine's thread to learn of the next one, both have to
wake up, and to wait for a processor and for Python's lock. That takes from a fraction of a millisecond to several where
processors are busy, and an engine that is short of time would stand still for that long between any two batches. So
while all engines are busy, the next batch lies in the queue of the thread of the engine that should be free first.
Until it begins it can be taken back, and its images stay in the queue of all; whatever changes there takes it back.
"""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from service.batching.engine_thread import BatchResult
from service.batching.former import BatchPlan
from service.batching.waiting import Members, Waiting


@dataclass(frozen=True, eq=False)
class Ahead:
    """A batch that lies ready. Used on the event loop."""

    engine: str  # its name
    members: Members
    plan: BatchPlan
    begun: Future[BatchResult | None]  # see EngineThread.begin_next

    @property
    def did_not_begin(self) -> bool:
        """Whether it was taken back, or was wanted no more when it was its turn."""
        return self.begun.cancelled() or (
            self.begun.done() and self.begun.exception() is None and self.begun.result() is None
        )

    def take_back(self) -> bool:
        """Have it not begin; False if it has begun."""
        return self.begun.cancel() or self.did_not_begin

    def outlives(self, newcomer: Waiting) -> bool:
        """Whether it stays the next batch although somebody joins the queue."""
        return self.plan.is_complete and newcomer.place.arrived >= self.members[-1].place.arrived
