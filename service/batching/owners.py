"""What those who run batches ask of whoever owns them, because they cannot do it by themselves."""

from __future__ import annotations

from typing import Protocol

from model.runtime.engines.engine import Engine
from service.batching.waiting import Waiting


class EngineOwner(Protocol):
    """What a batcher asks of whoever owns the model."""

    def reopen_engine(self, name: str) -> Engine:
        """Open the same model again on the device of the engine of this name; called in that engine's thread.

        Raises what goes wrong.
        """

    def engine_lost(self) -> None:
        """Learn, on the event loop, that the last engine is lost, and only a new process helps."""


class RunnerOwner(Protocol):
    """What the runner of one engine asks of whoever gives it batches: on the event loop, but for `reopen_engine`."""

    def reopen_engine(self, name: str) -> Engine:
        """See EngineOwner."""

    def pass_on(self, waiting: Waiting, name: str, error: Exception | None) -> bool:
        """Have another engine answer an image than the one of this name; False if there is none that could.

        Args:
            waiting: the image, which is not in the queue.
            name: of the engine that does not answer it.
            error: that the image gets if no other engine answers it, either; None if it was not tried.
        """

    def engine_free(self) -> None:
        """Learn that a batch has ended, whatever became of it."""

    def engine_lost(self, name: str) -> None:
        """Learn that the engine of this name takes nothing more."""
