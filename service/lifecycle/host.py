"""What the parts of a service may ask of it."""

from __future__ import annotations

from typing import Protocol

from model.runtime.engines.engine import Engine
from service.lifecycle.warm_up import WarmModel


class ModelHost(Protocol):
    """Whoever has the models: loads them, lets them serve, and goes down with an engine that cannot be saved.

    Used on the event loop, but for `reopen`.
    """

    def check_serving(self) -> None:
        """Raise StartingError or DrainingError, unless a model serves."""

    async def loaded(self) -> None:
        """Return when the first model has loaded, or failed to."""

    async def load(self) -> WarmModel:
        """Load a model from where models come from.

        Raises:
            HubError, ArtifactError, DeviceError, DeviceMemoryError, SettingsError: it cannot be used.
        """

    def take_over(self, warm: WarmModel) -> None:
        """Let a model serve in place of the one before, which ends what it has begun."""

    def check_room(self, images: int) -> None:
        """Raise QueueFullError unless there is room for so many images more."""

    def reopen(self, digest: str, name: str) -> Engine:
        """See `ModelLoader.reopen`."""

    def engine_lost(self) -> None:
        """End, because the last engine that serves is lost, and only a new process helps."""

    def give_back_memory(self) -> None:
        """Give the system back what has been freed, soon."""
