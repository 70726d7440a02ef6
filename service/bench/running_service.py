"""What a running service says of itself, asked before and after it is loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from service.bench.bare_engine import Kind
from service.bench.connection import Answer, Connection, Request, Target, UnreadableError
from service.http.paths import METRICS, MODEL

_PATIENCE_S = 30.0


class BenchError(Exception):
    """The measurement cannot be made; the message says why."""


async def check_service(target: Target, task: Kind, headers: Mapping[str, str]) -> None:
    """Raise BenchError unless a DETR service answers there whose model can do this."""
    answer = await _get(target, MODEL, headers)
    try:
        described = json.loads(answer.body)
        if answer.status != 200:
            raise BenchError(f"{_where(target)} answers {answer.status}: {described['error']['message']}")
        name, mask_stride = described["name"], described["mask_stride"]
    except (ValueError, KeyError, TypeError):
        raise BenchError(f"{_where(target)} is not a DETR service") from None
    if task == "segment" and mask_stride is None:
        raise BenchError(f"the model {name} detects objects and has no masks; use --task detect")


async def metrics_text(target: Target, headers: Mapping[str, str]) -> str:
    """GET /metrics; empty where they are off, or on a port of their own. Raises BenchError if nobody answers."""
    answer = await _get(target, METRICS, headers)
    return answer.body.decode() if answer.status == 200 else ""


async def _get(target: Target, path: str, headers: Mapping[str, str]) -> Answer:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            connection = await Connection.open(target)
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


def _where(target: Target) -> str:
    return f"http://{target.host}:{target.port}"
