"""One measurement of a running service: it is asked what it can do, loaded, and its metrics are read around that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.bench.connection import BenchConnection, BenchTarget, Reply, Request, UnreadableError
from service.bench.load import Sample, closed_loop, open_loop
from service.bench.report import Figures, ServerFigures, figures_of, server_figures
from service.http.paths import METRICS, MODEL
from service.images.answers import TaskName

_PATIENCE_S = 30.0


class BenchError(Exception):
    """The measurement cannot be made; the message says why."""


@dataclass(frozen=True)
class Load:
    """What is sent, and how."""

    requests: Sequence[Request]
    clients: int
    rate: float | None  # requests a second; None for a closed loop
    seconds: float
    warmup: float  # seconds

    async def run(self, target: BenchTarget) -> list[Sample]:
        """Warm up and measure."""
        if self.warmup > 0:
            await self._run(target, self.warmup, seed=1)
        return await self._run(target, self.seconds, seed=0)

    async def _run(self, target: BenchTarget, seconds: float, seed: int) -> list[Sample]:
        if self.rate is not None:
            return await open_loop(target, self.requests, rate=self.rate, seconds=seconds, seed=seed)
        return await closed_loop(target, self.requests, clients=self.clients, seconds=seconds, seed=seed)


async def measure(
    target: BenchTarget, task: TaskName, load: Load, headers: Mapping[str, str], deadline_ms: float
) -> tuple[Figures, ServerFigures]:
    """Load a service, and say what the client and the server noted.

    Args:
        target: the service.
        task: what the load asks for.
        load: what is sent.
        headers: of the requests for the model and for the metrics.
        deadline_ms: latency up to which an answer counts as good.

    Raises:
        BenchError: no DETR service answers there, or its model cannot do this.
    """
    await _check_service(target, task, headers)
    before = await _metrics_text(target, headers)
    samples = await load.run(target)
    after = await _metrics_text(target, headers)
    return figures_of(samples, deadline_ms), server_figures(before, after)


async def _check_service(target: BenchTarget, task: TaskName, headers: Mapping[str, str]) -> None:
    """Raise BenchError unless a DETR service answers there whose model can do this."""
    reply = await _get(target, MODEL, headers)
    try:
        described = json.loads(reply.body)
        if reply.status != 200:
            raise BenchError(f"{_where(target)} answers {reply.status}: {described['error']['message']}")
        name, mask_stride = described["name"], described["mask_stride"]
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{_where(target)} is not a DETR service") from None
    if task == "segment" and mask_stride is None:
        raise BenchError(f"the model {name} detects objects and has no masks; use --task detect")


async def _metrics_text(target: BenchTarget, headers: Mapping[str, str]) -> str:
    """GET /metrics; empty where they are off, or on a port of their own. Raises BenchError if nobody answers."""
    reply = await _get(target, METRICS, headers)
    return reply.body.decode() if reply.status == 200 else ""


async def _get(target: BenchTarget, path: str, headers: Mapping[str, str]) -> Reply:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            connection = await BenchConnection.open(target)
            try:
                return await connection.exchange(Request(path, method="GET", headers=headers).wire(target))
            finally:
                connection.close()
    except UnreadableError:
        raise BenchError(f"{_where(target)} is not a DETR service") from None
    except (TimeoutError, ConnectionError):
        raise BenchError(f"no server answers at {_where(target)}") from None
    except OSError as error:
        raise BenchError(f"cannot reach {_where(target)}: {error.strerror}") from None


def _where(target: BenchTarget) -> str:
    return f"http://{target.host}:{target.port}"
