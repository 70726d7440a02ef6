"""Finding images in a JSON body: `{"image": "..."}` or `{"images": ["...", ...]}`, in base64 or as data: URLs."""

from __future__ import annotations

from functools import partial

from service.errors import BrokenJsonError, EmptyUploadError
from service.images.json_text import JsonText, read_json_text
from service.images.several_images import MOST_IMAGES, check_image_count, only_image

_SHAPE = 'the JSON has to be {"image": "..."} or {"images": ["...", ...]}, each a picture\'s file in base64'


def json_image(body: bytes | bytearray) -> bytes:
    """The bytes of the one image in a JSON body.

    Raises:
        BrokenJsonError: it is no JSON, or not of this shape.
        EmptyUploadError: the image has no bytes.
        SeveralImagesError: it has several.
        TooManyImagesError: it has more than anybody accepts.
    """
    text = read_json_text(body, MOST_IMAGES)
    value = text.value
    if not isinstance(value, dict):
        raise BrokenJsonError(_SHAPE)
    if value.keys() - {"image", "images"}:
        raise BrokenJsonError(f"{_SHAPE}, and nothing else; parameters go into the query")
    images = [value["image"]] if value.keys() == {"image"} else value.get("images")
    if len(value) != 1 or not isinstance(images, list) or not images:
        raise BrokenJsonError(_SHAPE)
    check_image_count(len(images))
    if not all(isinstance(image, str) for image in images):
        raise BrokenJsonError(_SHAPE)
    return only_image([partial(_decoded, text, image) for image in images])


def _decoded(text: JsonText, image: str) -> bytes:
    found = text.base64(image, "an image in JSON")
    if not found:
        raise EmptyUploadError("an image in the JSON is empty")
    return found
