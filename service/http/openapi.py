"""What the OpenAPI description says beyond what FastAPI finds out by itself."""

from __future__ import annotations

from typing import Any

from service.http.access import Access
from service.http.error_answers import TABLE
from service.http.paths import HEALTH
from service.schemas import ErrorResponse

_BINARY = {"schema": {"type": "string", "format": "binary"}}

_BASE64 = {"type": "string", "contentEncoding": "base64", "description": "a picture's file, or a data: URL of it"}


def _object_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}


# The handlers read the body themselves, within limits, so it has to be described by hand.
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "a JPEG, PNG or WebP, as the field `image` of a form, in base64 in JSON, or as the body itself, "
        "which is read by its first bytes. A form with several fields `image`, or JSON with `images`, gets a list",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "additionalProperties": False,
                    "properties": {"image": {"type": "array", "minItems": 1, "items": _BINARY["schema"]}},
                },
                "encoding": {"image": {"contentType": "image/jpeg, image/png, image/webp"}},
            },
            "application/json": {
                "schema": {
                    "oneOf": [
                        _object_of("image", _BASE64),
                        _object_of("images", {"type": "array", "minItems": 1, "items": _BASE64}),
                    ]
                }
            },
            "application/octet-stream": _BINARY,
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
        },
    }
}


def answers(description: str, example: dict[str, Any], *media_types: str) -> dict[int | str, dict[str, Any]]:
    """The declaration of a success that is JSON such as the example, or a file."""
    content = {"application/json": {"example": example}, **dict.fromkeys(media_types, _BINARY)}
    return {200: {"description": description, "content": content}}


_FOUND = {"label": "cat", "category_id": 17, "isthing": True, "score": 0.9876}
_BOX = {"x1": 12.0, "y1": 8.0, "x2": 210.0, "y2": 180.0}
_SEEN = {"model": "detr-resnet-50-panoptic", "image": {"width": 4, "height": 2}}
DETECT_EXAMPLE: dict[str, Any] = {
    "model": "detr-resnet-50",
    "image": {"width": 640, "height": 480},
    "detections": [{**_FOUND, "box": _BOX}],
}
SEGMENT_EXAMPLE: dict[str, Any] = {
    **_SEEN,
    "segments": [
        {
            "id": 1,
            **_FOUND,
            "area": 8,
            "box": {"x1": 0.0, "y1": 0.0, "x2": 4.0, "y2": 2.0},
            "rle": {"size": [2, 4], "counts": "08"},
        }
    ],
    "panoptic_png": "iVBORw0KGgo...",
}


_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}

_ERRORS: dict[int, str] = {
    400: "the request is not valid HTTP, or the upload is empty, broken, or not an image",
    401: "no API key, or a wrong one",
    403: "the key does not open this",
    408: "the upload took too long",
    409: "the model is being reloaded already",
    413: "too many bytes, images or pixels, or too much work to decode",
    415: "a content type or image format that is not accepted",
    422: "a parameter or form field that cannot be used, masks asked of a model without, or a model file refused",
    431: "headers or a query that are too long",
    500: "the engine or the service failed",
    503: "the queue is full, or the service is starting or shutting down",
    504: "the answer took too long",
}


_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "basic": {"type": "http", "scheme": "basic", "description": "any name; the password is the key"},
}


_EVERYWHERE = (400, 422, 431, 500)


# Of routes for admins, whether other routes want a key or not.
ADMIN_KEY: dict[str, Any] = {"security": [{"bearer": []}, {"header": []}]}


def describe_access(api: dict[str, Any], access: Access) -> None:
    """Add to a description the keys that an app wants, and the 401 of those who have none; health wants none."""
    api["components"]["securitySchemes"] = _SCHEMES
    if not access.is_guarded:
        return
    api["security"] = [{name: []} for name in _SCHEMES]
    challenge = {"WWW-Authenticate": {"description": "how to present a key", "schema": {"type": "string"}}}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    for path, operations in api["paths"].items():
        for operation in operations.values():
            if path in HEALTH:
                operation["security"] = []
            else:
                operation["responses"]["401"] = {
                    "description": _ERRORS[401], "headers": challenge, "content": content,
                }  # fmt: skip


def _examples(status: int) -> dict[str, Any]:
    """An error of each code that has this status, as it is answered."""
    found = {row.code: row.message or _ERRORS[status] for row in TABLE.values() if row.status == status}
    return {
        code: {"value": {"error": {"code": code, "message": message, "request_id": "a4266ba1b7d07dd0"}}}
        for code, message in found.items()
    }


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declarations of the errors a route can answer beyond those of every route, all in the one error shape."""
    declared: dict[int | str, dict[str, Any]] = {}
    for status in sorted({*_EVERYWHERE, *statuses}):
        declared[status] = {"model": ErrorResponse, "description": _ERRORS[status]}
        if examples := _examples(status):
            declared[status]["content"] = {"application/json": {"examples": examples}}
        if status == 503:
            declared[status]["headers"] = _RETRY_AFTER
    return declared
