"""The answers to several images of one request as one answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from service.http.error_answers import TABLE, ErrorRow, error_body, row_of
from service.images.coco import DetectionEntries, InstanceEntries, PanopticResultEntry
from service.images.explanations import ExplainResponse
from service.images.task import Content
from service.schemas import Body, DetectResponse, ErrorResponse, InstanceResponse, SegmentResponse

logger = logging.getLogger(__name__)


class DetectResults(Body):
    """Answer of POST /detect to several images, in their order."""

    results: list[DetectResponse | DetectionEntries | ErrorResponse]


class SegmentResults(Body):
    """Answer of POST /segment to several images, in their order."""

    results: list[SegmentResponse | InstanceResponse | PanopticResultEntry | InstanceEntries | ErrorResponse]


class ExplainResults(Body):
    """Answer of POST /explain to several images, in their order."""

    results: list[ExplainResponse | ErrorResponse]


def content_of_each(answers: Sequence[Content | Exception], request_id: str) -> Content:
    """`{"results": [...]}` in the images' order: of each what a request of its own would answer, its error included."""
    bodies = [_body(answer, request_id) for answer in answers]
    return Content(b'{"results":[' + b",".join(bodies) + b"]}", "application/json")


def errors_among(answers: Sequence[Content | Exception]) -> list[ErrorRow]:
    """How each error among the answers is answered."""
    return [row_of(answer) for answer in answers if isinstance(answer, Exception)]


def _body(answer: Content | Exception, request_id: str) -> bytes:
    if isinstance(answer, Content):
        return answer.body
    if row_of(answer) is TABLE[Exception]:  # which nobody foresaw
        logger.error("an image of request %s failed", request_id, exc_info=answer)
    return error_body(answer, request_id).model_dump_json().encode()
