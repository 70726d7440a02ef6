"""Pictures on disk, decoded as the service decodes an upload, and turned into the frame of their annotations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.data.formats.coco_files import ImageRecord
from model.data.formats.file_names import FileNames
from model.runtime.decode import LARGEST, ImageError, ImageFormatError, NotAnImageError, OpenedImage, open_image
from model.runtime.orientation import AS_STORED, Turn

# The frame that a picture is annotated in, by its annotated size: "displayed" is how it is served, "stored" is not, and
# "either" is displayed as well, but of a picture that EXIF turns and that has this size as stored, too.
Frame = Literal["displayed", "stored", "either"]


# Endings by which pictures are known, whatever is opened: others than JPEG, PNG and WebP are refused, not passed over.
_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp"}
    | {".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".dng"}
)


def pictures_in(folder: Path) -> list[str]:
    """The pictures in a folder and those below it, by their endings, as names below the folder, by the alphabet."""
    found: list[str] = []
    for inner, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(inner).relative_to(folder)
        found += ((inside / name).as_posix() for name in names if Path(name).suffix.lower() in _ENDINGS)
    return sorted(name for name in found if not Path(name).name.startswith("."))


def displayed_size(path: Path) -> tuple[int, int]:
    """(height, width) of a picture as it is displayed, read from its beginning. Raises what `open_picture` does."""
    with open_picture(path, str(path)) as image:
        return image.displayed_size


@contextmanager
def open_picture(path: Path, name: str) -> Iterator[OpenedImage]:
    """Open a picture, to be decoded within the block.

    Raises OSError if it cannot be read, ValueError, beginning with the name, if it cannot be decoded or is in a format
    that the service refuses.
    """
    try:
        with open_image(path.read_bytes(), LARGEST) as image:
            yield image
    except ImageFormatError as error:
        formats = "pictures have to be JPEG, PNG or WebP, as the service takes them"
        raise ValueError(f"{name} is a {error.image_format} file: {formats}") from error
    except NotAnImageError as error:
        raise ValueError(f"{name} cannot be decoded: it is not an image") from error
    except ImageError as error:
        raise ValueError(f"{name} cannot be decoded: {error}") from error


def read_pixels(folder: Path, record: ImageRecord) -> NDArray[np.uint8]:
    """Decode an annotated picture to RGB, uint8 [height, width, 3], of the size that it is annotated with.

    It is turned by its EXIF orientation, as in the service, unless only the picture as stored has that size.

    Raises FileNotFoundError if it is not there, ValueError if it cannot be decoded, is in a format that the service
    refuses, or has another size than annotated.
    """
    with _open_annotated(folder, record) as image:
        if (turn := _turn_of_annotations(image, record)) is not None:
            return np.array(image.decode(turn).picture)
    raise _wrong_size(folder, record, image)


def check_picture(folder: Path, record: ImageRecord) -> Frame:
    """Raise what `read_pixels` would, in about half of its time for a JPEG, and tell in which frame it is annotated.

    A JPEG is read to its end but only an eighth of its detail, and none of its color, is turned into pixels.
    """
    with _open_annotated(folder, record) as image:
        turn = _turn_of_annotations(image, record)
        height, width = image.stored_size
        image.stored.draft("L", (max(1, width // 8), max(1, height // 8)))
        image.stored.load()
    if turn is None:
        raise _wrong_size(folder, record, image)
    if turn is not image.turn:
        return "stored"
    return "either" if turn is not AS_STORED and image.displayed_size == image.stored_size else "displayed"


@contextmanager
def _open_annotated(folder: Path, record: ImageRecord) -> Iterator[OpenedImage]:
    path = folder / record.file_name
    try:
        with open_picture(path, _name(folder, record)) as image:
            yield image
    except FileNotFoundError as error:
        closest = FileNames(folder).closest(record.file_name)
        like = f": {record.file_name!a} is not there, {closest} is" if closest is not None else ""
        raise FileNotFoundError(f"image {record.id} has no file {path}{like}") from error


def _turn_of_annotations(image: OpenedImage, record: ImageRecord) -> Turn | None:
    """How a picture has to be turned for its annotations; None if they fit neither way."""
    turns = {image.stored_size: AS_STORED} | {image.displayed_size: image.turn}
    return turns.get((record.height, record.width))


def _wrong_size(folder: Path, record: ImageRecord, image: OpenedImage) -> ValueError:
    height, width = image.displayed_size
    annotated = f"{record.width} x {record.height}"
    return ValueError(f"{_name(folder, record)} is {width} x {height} pixels but annotated as {annotated}")


def _name(folder: Path, record: ImageRecord) -> str:
    return f"image {record.id}, {folder / record.file_name},"
