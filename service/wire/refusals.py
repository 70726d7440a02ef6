"""Answers to what never reaches the app, in the shape that all errors have."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from service.process.metrics import Metrics
from service.process.trace import Trace, new_request_id
from service.schemas import ErrorBody, ErrorResponse

logger = logging.getLogger("service.request")

CLOSE_HEADER = (b"connection", b"close")


@dataclass(frozen=True)
class Refusal:
    """Why something is not answered by the app."""

    status: int
    code: str
    message: str


NOT_HTTP = Refusal(400, "bad_request", "the request is not valid HTTP")
HEADERS_TOO_LARGE = Refusal(431, "headers_too_large", "the request's headers are too large")
NO_MEMORY = Refusal(503, "memory_full", "there is no memory for this request at present, please try again later")
CROWDED = Refusal(503, "too_many_connections", "too many connections are open, please try again later")


def refuse(refusal: Refusal, metrics: Metrics, retry_after_s: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer, which closes its connection; counted and logged here, as the app cannot."""
    error = ErrorBody(code=refusal.code, message=refusal.message, request_id=new_request_id())
    body = ErrorResponse(error=error).model_dump_json().encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", error.request_id.encode()),
        (b"cache-control", b"no-store"),
        CLOSE_HEADER,
    ]
    if refusal.status == 503:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    metrics.request_ended("other", refusal.status, 0.0, Trace(error_code=refusal.code))
    fields = {"method": "other", "route": "other", "status": refusal.status, "error": refusal.code}
    logger.info("request", extra={"fields": {"request_id": error.request_id} | fields})
    return headers, body
