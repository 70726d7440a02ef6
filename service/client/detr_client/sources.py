"""From what a Python program has of a picture to the bytes that are sent."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detr_client.errors import SourceError

# A path, the bytes of an image file, an open one, or pixels: uint8 [height, width, 3] in RGB, [height, width, 4] in
# RGBA, or [height, width] or [height, width, 1] in grey.
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})  # which PNG has as they are
_PLAIN_MODES = {
    "La": "LA",
    "RGBa": "RGBA",
    "PA": "RGBA",
    "RGBX": "RGB",
}  # that others are turned into, with their alpha
_URL = re.compile(r"[a-z][a-z0-9+.-]+://|data:", re.IGNORECASE)


def is_many(source: Source | Iterable[Source]) -> TypeGuard[Iterable[Source]]:
    """Whether this is several sources and not one."""
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Mapping)
    return isinstance(source, Iterable) and not isinstance(source, one) and not hasattr(source, "read")


def picture_bytes(source: Source, *, bgr: bool = False, jpeg_quality: int | None = None) -> bytes:
    """The bytes of an image file with the picture.

    Files and bytes stay as they are. Pixels become a PNG, which keeps each of them, or with `jpeg_quality` a smaller
    JPEG, which does not. A PIL image is turned upright first, as its EXIF orientation says, like a file on the server.

    Args:
        source: the picture.
        bgr: the channels of an array are in the order of OpenCV.
        jpeg_quality: 1 to 95, of what is no file yet.

    Raises:
        SourceError: it is no picture.
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _not_empty(source, "the picture has no bytes")
    if isinstance(source, str | os.PathLike):
        return _not_empty(_file_bytes(source), "the file is empty")
    if isinstance(source, np.ndarray):
        return _encoded(_image_of(source, bgr), jpeg_quality)
    if isinstance(source, Image.Image):
        return _encoded(_upright(source), jpeg_quality)
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes | bytearray | memoryview):
            return _not_empty(content, "the file is empty, or was read to its end: seek(0) first")
        raise SourceError(f"the file gives {type(content).__name__} and has to be opened with mode 'rb'")
    raise SourceError(
        f"a {type(source).__name__} is no picture: give a path, bytes, a file, a PIL image or a numpy array"
    )


def upright_rgb(source: Source, *, bgr: bool = False) -> Image.Image:
    """A copy of a picture in RGB as the server sees it: upright, with white where it is transparent. Raises SourceError
    or OSError if it cannot be read here.
    """
    if isinstance(source, np.ndarray):
        image = _image_of(source, bgr)
    elif isinstance(source, Image.Image):
        image = _upright(source)
    else:
        image = _upright(Image.open(io.BytesIO(picture_bytes(source))))
    if not image.has_transparency_data:
        return image.convert("RGB").copy()
    seen = image.convert("RGBA")
    white = Image.new("RGBA", seen.size, "white")
    return Image.alpha_composite(white, seen).convert("RGB")


def name_of_source(source: Any, number: int) -> str:
    """What a source is called in a message: its path, or its place among the sources."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"picture {number}"


def _file_bytes(path: str | os.PathLike[str]) -> bytes:
    text = os.fsdecode(path)
    if _URL.match(text):
        raise SourceError("a URL is no picture: fetch it, and give its bytes")
    return Path(text).read_bytes()


def _not_empty(content: bytes | bytearray | memoryview, otherwise: str) -> bytes:
    if not len(content):
        raise SourceError(otherwise)
    return bytes(content)


def _image_of(array: NDArray[Any], bgr: bool) -> Image.Image:
    shape = " x ".join(map(str, array.shape)) or "a single number"
    if array.dtype != np.uint8:
        raise SourceError(f"the array is of {array.dtype} and has to be of uint8, 0 to 255")
    if array.ndim == 4:
        raise SourceError(f"the array is {shape}: give the pictures of a batch as a list, list(array)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or 0 in array.shape:
        raise SourceError(
            f"the array is {shape} and has to be height x width x 3 (RGB), x 4 (RGBA), or grey without or x 1"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if bgr and array.ndim == 3:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(array))


def _upright(image: Image.Image) -> Image.Image:
    """An image turned by its EXIF orientation, in a mode that says what its pixels are to a PNG or to RGB."""
    if 0 in image.size:
        raise SourceError(f"the image has no pixels: {image.width} x {image.height}")
    upright = ImageOps.exif_transpose(image)
    if upright.mode in _PLAIN_MODES:
        return upright.convert(_PLAIN_MODES[upright.mode])
    return _in_eight_bits(upright) if upright.mode.startswith("I") else upright


def _in_eight_bits(grey: Image.Image) -> Image.Image:
    """Grey of 16 bits as the server takes it from a file; what Pillow converts by itself is cut off at 255."""
    values = np.asarray(grey).astype(np.int64).clip(0, 65_535)
    if grey.mode == "I" and values.max() <= 255:  # of 32 bits, which do not say what is white
        return Image.fromarray(values.astype(np.uint8))
    return Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))


def _encoded(image: Image.Image, jpeg_quality: int | None) -> bytes:
    buffer = io.BytesIO()
    if jpeg_quality is not None:
        image.convert("RGB").save(buffer, format="JPEG", quality=jpeg_quality)
    else:
        exact = image if image.mode in _PNG_MODES else image.convert("RGB")
        exact.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
