"""From an HTTP answer, or one in its form, to what is returned or raised."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from detr_client.answers import Answer
from detr_client.errors import StrangeAnswerError, refused_error

A = TypeVar("A", bound=Answer)

Classes = str | int | np.integer[Any] | Iterable[str | int | np.integer[Any]]  # names or category ids
# One segment for each pixel, or a mask for each object.
Mode = Literal["panoptic", "instance"]
PointsXY = Sequence[tuple[float, float]] | NDArray[np.floating[Any]]  # x and y of each, in pixels


def query_of(
    threshold: float | None, classes: Classes | None, mode: Mode = "panoptic", polygons: bool = False
) -> dict[str, str]:
    """The query parameters of a request; what is not given is the model's own."""
    query = {} if threshold is None else {"threshold": repr(float(threshold))}
    query |= {} if mode == "panoptic" else {"mode": mode}
    query |= {"polygons": "true"} if polygons else {}
    if classes is not None:
        one = isinstance(classes, str | int | np.integer)
        query["classes"] = ",".join(str(part) for part in ([classes] if one else classes))  # type: ignore[union-attr]
    return query


def explain_query_of(
    threshold: float | None, classes: Classes | None, query: int | None, points: PointsXY
) -> dict[str, str]:
    """The query parameters of a request to /explain."""
    parameters = query_of(threshold, classes)
    if query is not None:
        parameters["query"] = str(int(query))
    if len(points):
        parameters["points"] = ";".join(f"{float(x):.6f},{float(y):.6f}" for x, y in points)
    return parameters


def answer_of(kind: type[A], status: int, body: bytes) -> A:
    """The answer in a reply.

    Raises:
        RefusedError: it says why there is none.
        StrangeAnswerError: it is not one of a detr-serve.
    """
    content = parsed(status, body)
    if not 200 <= status < 300:
        raise _refusal(status, content)
    if not isinstance(content, dict):
        raise StrangeAnswerError("this is no answer of a detr-serve")
    return kind(content)


def parsed(status: int, body: bytes) -> Any:
    """JSON that was answered. Raises StrangeAnswerError, or RefusedError where the status says enough."""
    try:
        return json.loads(body)
    except ValueError as error:
        if status >= 400:  # of a proxy before the server
            return {}
        raise StrangeAnswerError(f"what answered {status} is no detr-serve: the answer is not JSON") from error


def _refusal(status: int, content: Any) -> Exception:
    told = content.get("error") if isinstance(content, dict) else None
    if status < 400:
        return StrangeAnswerError(f"what answered {status} is no detr-serve, or the URL leads elsewhere")
    if not isinstance(told, dict):
        return refused_error(status, "http_error", "the server, or a proxy before it, answered without a reason")
    return refused_error(status, str(told.get("code")), str(told.get("message")), told.get("request_id") or None)
