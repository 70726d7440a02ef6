"""What is asked of all replicas at once. Ray sends a request to one of them, which asks the others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector
from ray import serve
from ray.serve.handle import DeploymentHandle

from service.errors import ServiceError

_METRICS_S = 5.0


class AllReplicas:
    """The replicas of this replica's deployment, itself among them. See Replicas."""

    async def metrics_text(self) -> bytes:
        """See Replicas. Each sample has its replica's name as a label; one that is ending may be missing.

        Raises:
            TimeoutError: a replica has not answered in five seconds.
        """
        found = await self._ask("metric_families", _METRICS_S)
        families = [family for answer in found if not isinstance(answer, BaseException) for family in answer]
        return await asyncio.to_thread(generate_latest, Families(families))

    async def reload(self) -> None:
        """See Replicas. Those that can load the model do, and the others serve on with the old one."""
        for failure in await self._ask("reload_here", None):
            if isinstance(failure, ServiceError):
                raise failure

    @cached_property
    def _handle(self) -> DeploymentHandle[Any]:
        here = serve.get_replica_context()
        return serve.get_deployment_handle(here.deployment, here.app_name)

    async def _ask(self, method: str, timeout_s: float | None) -> list[Any]:
        """What a method of each replica returns or, where that has failed or is ending, an exception."""
        return await self._handle.broadcast(method).results_async(timeout_s=timeout_s, return_exceptions=True)


def with_label(family: Metric, name: str, value: str) -> Metric:
    """The same metric with a label more on each sample."""
    labelled = Metric(family.name, family.documentation, family.type, family.unit)
    labelled.samples = [sample._replace(labels={**sample.labels, name: value}) for sample in family.samples]
    return labelled


class Families(Collector):
    """Metrics of several registries as one: what has one name is one metric."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: dict[str, Metric] = {}
        for family in families:
            known = self._families.setdefault(family.name, family)
            if known is not family:
                known.samples += family.samples

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        yield from self._families.values()
