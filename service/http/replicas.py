"""What is asked of a service as a whole, be it one process or several behind one address."""

from __future__ import annotations

from typing import Protocol

from starlette.concurrency import run_in_threadpool

from service.lifecycle.service import Service


class Replicas(Protocol):
    """All processes that serve together. Used on the event loop."""

    async def metrics_text(self) -> bytes:
        """The metrics of all of them in Prometheus's text format."""

    async def reload(self) -> None:
        """Have all of them load the model again.

        Raises:
            ServiceError: one of them does not; see `Reloader.reload`.
        """


class OnlyReplica:
    """A process that serves alone."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def metrics_text(self) -> bytes:
        """See Replicas. The text is made in a thread that no decode can occupy."""
        return await run_in_threadpool(self._service.metrics.text)

    async def reload(self) -> None:
        """See Replicas."""
        await self._service.reloader.reload()
