"""COCO's id PNGs: of each pixel the id of its segment, red + 256 * green + 256 * 256 * blue.

They are no pictures: nothing turns them, and nothing that is transparent in one becomes white.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.formats.coco_files import ImageRecord

# Pillow's modes in which an id PNG comes out right as RGB. Gray would repeat its one byte in all three.
_MODES = ("RGB", "RGBA", "P")


def read_ids(folder: Path, record: ImageRecord) -> NDArray[np.int32]:
    """Segment ids, int32 [height, width], of the id PNG that a record names.

    Raises FileNotFoundError if it is not there, ValueError if it cannot be decoded or has another size than annotated.
    """
    with _opened(folder, record) as image:
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int32), -1, 0)
    return red + 256 * green + 65536 * blue


def check_id_png(folder: Path, record: ImageRecord) -> None:
    """Check size, mode and checksums of an id PNG, without decoding it; raises like `read_ids`."""
    with _opened(folder, record) as image:
        mode, kind = image.mode, image.format
        image.verify()
    if kind != "PNG" or mode not in _MODES:
        where = f"image {record.id}, {folder / record.file_name},"
        raise ValueError(f"{where} is a {kind} of mode {mode}: segment ids need a PNG of mode RGB")


@contextmanager
def _opened(folder: Path, record: ImageRecord) -> Iterator[Image.Image]:
    """Open an id PNG, to be decoded within the context: whatever Pillow raises there says which one it was."""
    path = folder / record.file_name
    try:
        with Image.open(path) as image:
            width, height = image.size
            yield image
    except FileNotFoundError as error:
        raise FileNotFoundError(f"image {record.id} has no file {path}") from error
    except Exception as error:  # decoders raise nearly anything on broken files
        raise ValueError(f"image {record.id}, {path}, cannot be decoded: {error}") from error
    if (height, width) != (record.height, record.width):
        annotated, found = f"{record.width} x {record.height}", f"{width} x {height}"
        raise ValueError(f"image {record.id}, {path}, is {found} pixels but annotated as {annotated}")
