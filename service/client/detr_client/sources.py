"""From what a Python program has of a picture to the bytes that are sent."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from detr_client.errors import SourceError

# A path, the bytes of an image file, an open one, or pixels: uint8 [height, width, 3] in RGB, [height, width, 4] in
# RGBA, or [height, width] in grey.
Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image.Image | NDArray[np.uint8]

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})  # which PNG has as they are


def is_many(source: Source | Iterable[Source]) -> TypeGuard[Iterable[Source]]:
    """Whether this is several sources and not one."""
    one = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
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
        return bytes(source)
    if isinstance(source, str | os.PathLike):
        return _file_bytes(source)
    if isinstance(source, np.ndarray):
        return _encoded(_image_of(source, bgr), jpeg_quality)
    if isinstance(source, Image.Image):
        return _encoded(ImageOps.exif_transpose(source), jpeg_quality)
    if hasattr(source, "read"):
        content = source.read()
        if isinstance(content, bytes | bytearray | memoryview):
            return bytes(content)
        raise SourceError(f"the file gives {type(content).__name__} and has to be opened with mode 'rb'")
    raise SourceError(
        f"a {type(source).__name__} is no picture: give a path, bytes, a file, a PIL image or a numpy array"
    )


def upright_rgb(source: Source, *, bgr: bool = False) -> Image.Image:
    """A copy of a picture in RGB, turned upright. Raises SourceError or OSError if it cannot be read here."""
    if isinstance(source, np.ndarray):
        return _image_of(source, bgr).convert("RGB").copy()
    if not isinstance(source, Image.Image):
        source = Image.open(io.BytesIO(picture_bytes(source)))
    return ImageOps.exif_transpose(source).convert("RGB").copy()


def name_of_source(source: Any, number: int) -> str:
    """What a source is called in a message: its path, or its place among the sources."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"picture {number}"


def _file_bytes(path: str | os.PathLike[str]) -> bytes:
    text = os.fspath(path)
    if text.startswith(("http://", "https://")):
        raise SourceError("a URL is no picture: fetch it, and give its bytes")
    return Path(text).read_bytes()


def _image_of(array: NDArray[Any], bgr: bool) -> Image.Image:
    shape = " x ".join(map(str, array.shape))
    if array.dtype != np.uint8:
        raise SourceError(f"the array is of {array.dtype} and has to be of uint8, 0 to 255")
    if array.ndim == 4:
        raise SourceError(f"the array is {shape}: give the pictures of a batch as a list, list(array)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or 0 in array.shape:
        raise SourceError(f"the array is {shape} and has to be height x width x 3 (RGB), x 4 (RGBA), or grey without")
    if bgr and array.ndim == 3:
        array = array[:, :, [2, 1, 0, 3][: array.shape[2]]]
    return Image.fromarray(np.ascontiguousarray(array))


def _encoded(image: Image.Image, jpeg_quality: int | None) -> bytes:
    buffer = io.BytesIO()
    if jpeg_quality is not None:
        image.convert("RGB").save(buffer, format="JPEG", quality=jpeg_quality)
    else:
        exact = image if image.mode in _PNG_MODES else image.convert("RGB")
        exact.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
