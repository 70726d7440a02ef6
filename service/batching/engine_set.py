"""All engines of a model: which of them is free, which serve, and what is wrong where none does.

Whether there is one or there are many makes no difference to anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from model.runtime.engines.engine import Engine
from service.batching.canvas_maker import CanvasMaker
from service.batching.engine_runner import EngineRunner
from service.batching.latency_line import UNMEASURED, LatencyLine
from service.batching.limits import BatchLimits
from service.batching.owners import RunnerOwner
from service.errors import EngineRestartError, StalledError

if TYPE_CHECKING:  # Prometheus's client, an HTTP server included, is not needed to form batches
    from service.process.metrics import Metrics


class EngineSet:
    """The runners of a model's engines, by name. Used on the event loop, but for what any thread may ask."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        limits: BatchLimits,
        lines: Mapping[str, LatencyLine],
        canvases: CanvasMaker,
        owner: RunnerOwner,
        stall_seconds: float = math.inf,
        hang_seconds: float | None = None,
    ) -> None:
        """Make a runner for each engine, at least one; see there for the arguments."""
        self.runners = {
            name: EngineRunner(
                name, engine, metrics.of_device(name), limits, lines.get(name, UNMEASURED), canvases, owner,
                stall_seconds, hang_seconds,
            )
            for name, engine in engines.items()
        }  # fmt: skip
        for name, runner in self.runners.items():
            metrics.watch_engine(name, lambda runner=runner: runner.serves)  # type: ignore[misc]

    @property
    def is_idle(self) -> bool:
        """Whether no engine has a batch."""
        return all(runner.is_idle for runner in self.runners.values())

    @property
    def is_lost(self) -> bool:
        """Whether none is left."""
        return all(runner.is_lost for runner in self.runners.values())

    @property
    def is_stalled(self) -> bool:
        """Whether none serves, for one is stuck in a batch for too long. Any thread may ask."""
        runners = self.runners.values()
        return any(runner.is_stalled for runner in runners) and not any(runner.serves for runner in runners)

    def free(self) -> list[EngineRunner]:
        """Those that take a batch now, the one that has been free for longest first, so that all have their turn."""
        return sorted((each for each in self.runners.values() if each.is_free), key=lambda runner: runner.free_at)

    def next_free(self) -> EngineRunner | None:
        """The one that should be free first, where none is; None if none will be."""
        busy = (runner for runner in self.runners.values() if runner.serves)
        return min(busy, key=lambda runner: runner.free_at, default=None)

    def serve_without(self, *names: str | None) -> bool:
        """Whether others serve than those of these names."""
        return any(runner.serves for name, runner in self.runners.items() if name not in names)

    def last_without(self, *names: str | None) -> bool:
        """Whether no others are left than those of these names."""
        return all(runner.is_lost for name, runner in self.runners.items() if name not in names)

    def check(self) -> None:
        """Raise UnavailableError, saying why, unless an engine takes a batch now or soon."""
        runners = self.runners.values()
        if any(runner.serves for runner in runners):
            return
        if any(runner.is_reopening for runner in runners):
            raise EngineRestartError("the engine is being opened again, please try again later")
        if self.is_lost:
            raise EngineRestartError("the engine has failed, please try again later")
        seconds = max(runner.busy_seconds() for runner in runners)
        raise StalledError(f"the engine has been in one batch for {seconds:.0f} s")

    async def close(self) -> None:
        """Fail whom they have not answered, and let all engines go."""
        for runner in self.runners.values():
            await runner.close()
