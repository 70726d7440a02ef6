"""What the OpenAPI description says beyond what FastAPI finds out by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from model.runtime.image_formats import words_of_open
from service.http.access import Access
from service.http.answer_examples import AnswerExample
from service.http.error_answers import TABLE
from service.http.paths import HEALTH, IMAGES
from service.schemas import ErrorResponse

_BINARY = {"schema": {"type": "string", "format": "binary"}}

_BASE64 = {"type": "string", "contentEncoding": "base64", "description": "a picture's file, or a data: URL of it"}


def _object_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "additionalProperties": False, "properties": {name: schema}}


def image_body(formats: Collection[str] = ()) -> dict[str, Any]:
    """The declaration of a body with an image, of one of these formats or of those that always are opened.

    The handlers read the body themselves, within limits, so it has to be described by hand.
    """
    words = words_of_open(formats)
    types = [f"image/{word}" for word in words]
    return {
        "requestBody": {
            "required": True,
            "description": f"a picture ({', '.join(words)}), as the field `image` of a form, in base64 in JSON, or as "
            "the body itself, which is read by its first bytes. A form with several fields `image`, or JSON with "
            "`images`, gets a list",
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "additionalProperties": False,
                        "properties": {"image": {"type": "array", "minItems": 1, "items": _BINARY["schema"]}},
                    },
                    "encoding": {"image": {"contentType": ", ".join(types)}},
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
                **dict.fromkeys(types, _BINARY),
            },
        }
    }


def describe_formats(api: dict[str, Any], formats: Collection[str]) -> None:
    """Say in a description which formats are opened beside those that always are."""
    for path in IMAGES:
        api["paths"][path]["post"].update(image_body(formats))


def answers(
    description: str, examples: Mapping[str, AnswerExample], *media_types: str
) -> dict[int | str, dict[str, Any]]:
    """The declaration of a success that is JSON such as the examples, or a file."""
    shown = {
        name: {"summary": each.summary or "what is answered if nothing is asked for", "value": each.value}
        for name, each in examples.items()
    }
    content = {"application/json": {"examples": shown}, **dict.fromkeys(media_types, _BINARY)}
    return {200: {"description": description, "content": content}}


_RETRY_AFTER = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 1}}}

_ERRORS: dict[int, str] = {
    400: "the request is not valid HTTP, or the upload is empty, broken, or not an image",
    401: "no API key, or a wrong one",
    403: "the key does not open this",
    408: "the upload took too long",
    409: "the model is being reloaded already",
    413: "too many bytes, images or pixels, or too much work to decode",
    415: "a content type or image format that is not accepted",
    422: "a parameter or form field that cannot be used, what the model cannot do, or a model file refused",
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
