"""The images that wait for an engine, oldest first, and what would go next to an engine."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from service.batching.ahead import Ahead
from service.batching.engine_runner import EngineRunner
from service.batching.former import BatchPlan, note_overtaken, plan_batch
from service.batching.waiting import Members, Waiting
from service.errors import DeadlineError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import Metrics


class ImageQueue:
    """Who waits, those included whose batch lies ready at an engine. Used on the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        """Begin empty; the metrics are told how long it is."""
        self.hurrying = False  # no batch waits for more images any more
        self.ahead: Ahead | None = None  # the batch that lies ready, or has begun without anybody's having learned it
        self._metrics = metrics
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        """Images."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        """Oldest first."""
        return iter(self._waiting)

    def put_in(self, waiting: Waiting) -> None:
        """Add an image, in its place by age."""
        insort(self._waiting, waiting, key=lambda each: each.place.arrived)
        self._metrics.queue_depth.inc()
        if self.ahead is not None and not self.ahead.outlives(waiting):
            self.take_back()

    def take_out(self, waiting: Waiting) -> None:
        """Remove an image."""
        self._waiting.remove(waiting)
        self._metrics.queue_depth.dec()
        if self.ahead is not None and waiting in self.ahead.members:
            self.take_back()

    def take_back(self) -> None:
        """Have what lies ready not begin. Where it has, it remains, and nobody else gets its images."""
        if self.ahead is not None and self.ahead.take_back():
            self.ahead = None

    def drop_expired(self, now: float) -> None:
        """Fail what is past its deadline, and forget it and what was cancelled: neither reaches an engine."""
        for waiting in list(self._waiting):
            if waiting.place.deadline <= now:
                waiting.fail(DeadlineError("the deadline passed before the image's turn"))
            if waiting.is_done:
                self.take_out(waiting)

    def fail_all(self, error: Exception) -> None:
        """Give everybody an error; they take themselves out."""
        for waiting in self._waiting:
            waiting.fail(error)

    def first_plan(self, free: Sequence[EngineRunner], now: float) -> tuple[BatchPlan | None, EngineRunner]:
        """The first batch that is to go, and where; no batch if there is none for any of these, at least one."""
        first: tuple[BatchPlan | None, EngineRunner] = None, free[0]
        for runner in free:
            plan = self.plan(runner, now)
            if plan is not None and (first[0] is None or plan.go_at < first[0].go_at):
                first = plan, runner
                if plan.go_at <= now:
                    break
        return first

    def share_of(self, plan: BatchPlan, runner: EngineRunner, free: int, now: float) -> BatchPlan:
        """A batch that is to go now, without the images that other free engines begin with at the same time."""
        share = math.ceil(len(self._waiting) / free)
        if len(plan.members) <= share:
            return plan
        smaller = self.plan(runner, now, most=share)
        return plan if smaller is None else replace(smaller, reason=plan.reason)

    def plan(self, runner: EngineRunner, start: float, most: int | None = None) -> BatchPlan | None:
        """The next batch of an engine, of `most` images; None if nobody waits for it."""
        places = [waiting.place for waiting in self._of(runner)]
        limits = runner.limits if most is None else replace(runner.limits, max_batch_size=most)
        return plan_batch(places, runner.line, limits, start, self.hurrying) if places else None

    def members(self, plan: BatchPlan, runner: EngineRunner) -> Members:
        """Who is in the batch that was just planned for an engine."""
        queue = self._of(runner)
        return tuple(queue[position] for position in plan.members)

    def leave(self, members: Members, runner: EngineRunner) -> None:
        """Take those of a batch out who are still here; whoever is older has been overtaken."""
        self.ahead = None if self.ahead is not None and self.ahead.members == members else self.ahead
        queue = self._of(runner)
        if positions := [position for position, waiting in enumerate(queue) if waiting in members]:
            note_overtaken([waiting.place for waiting in queue], positions)
        for position in positions:
            self.take_out(queue[position])

    def _of(self, runner: EngineRunner) -> list[Waiting]:
        """Those who can go to an engine: it has not failed on them, and no batch with them has begun."""
        begun = () if self.ahead is None else self.ahead.members
        return [waiting for waiting in self._waiting if waiting.failed_on != runner.name and waiting not in begun]
