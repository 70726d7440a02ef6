"""Finding the image in a request's body, whatever kind of body it is."""

from __future__ import annotations

from service.images.json_body import json_image
from service.images.multipart import image_field

FORM, JSON = "multipart/form-data", "application/json"
_BYTES = ("application/octet-stream", "")


def media_type_of(content_type: str) -> str:
    """The type that a Content-Type header names, in lower case, without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def can_hold_image(kind: str) -> bool:
    """Whether a body of this kind can be, or hold, an image. What an image is, its first bytes say."""
    return kind in (FORM, JSON, *_BYTES) or kind.startswith("image/")


def image_bytes(body: bytes | bytearray, content_type: str) -> bytes | bytearray:
    """The bytes of the image in a body that is one, or a form or JSON with one.

    Raises what `image_field` and `json_image` raise.
    """
    kind = media_type_of(content_type)
    if kind == FORM:
        return image_field(body, content_type)
    return json_image(body) if kind == JSON else body
