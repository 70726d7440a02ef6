"""What the OpenAPI description says beyond what FastAPI finds out by itself."""

from __future__ import annotations

from typing import Any

from service.schemas import ErrorResponse

_BINARY = {"schema": {"type": "string", "format": "binary"}}

# The handlers read the body themselves, within limits, so it has to be described by hand.
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a JPEG, PNG or WebP, as the field `image` of a form or as the body itself",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {"image": {"type": "string", "format": "binary"}},
                },
                "encoding": {"image": {"contentType": "image/jpeg, image/png, image/webp"}},
            },
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
        },
    }
}

PNG_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "the segments, in the form that was asked for", "content": {"image/png": _BINARY}}
}

_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}

_ERRORS: dict[int, str] = {
    400: "the upload is empty, broken, or not an image",
    408: "the upload took too long",
    413: "too many bytes or pixels",
    415: "a content type or image format that is not accepted",
    422: "a parameter or form field that cannot be used, or masks asked of a model without",
    431: "headers or a query that are too long",
    500: "the engine or the service failed",
    503: "the queue is full, or the service is starting or shutting down",
    504: "the answer took too long",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declarations of the errors a route can answer, all in the one error shape."""
    declared: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        declared[status] = {"model": ErrorResponse, "description": _ERRORS[status]}
        if status == 503:
            declared[status]["headers"] = _RETRY_AFTER
    return declared
