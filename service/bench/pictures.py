"""The pictures that a load is made of: files of a folder, or synthetic ones of the sizes that COCO has."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

# COCO's size mix: (height, width) in pixels, and how many of 496 pictures have that canvas after the resize; rare ones
# are counted with the next aspect ratio. The 496 are the first of the validation list "5k" of COCO 2014, whose sizes
# are in data/5k.shapes of github.com/ultralytics/yolov3 (commit 4156e83). Of 100, 69 are wide, 27 tall, 4 square.
COCO_SIZES = {
    (319, 640): 9, (360, 640): 15, (383, 640): 7, (407, 640): 7, (343, 500): 4, (415, 640): 8, (427, 640): 122,
    (451, 640): 5, (457, 640): 5, (480, 640): 136, (513, 640): 3, (528, 640): 8, (338, 400): 4, (572, 640): 3,
    (612, 612): 26, (640, 621): 4, (640, 532): 5, (640, 512): 4, (640, 493): 3, (640, 480): 61, (640, 459): 8,
    (640, 427): 49,
}  # fmt: skip

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_QUALITY = 90
# Noise of several grains, as (cells along 640 pixels, spread): its JPEG has about as many bytes as a photo's (100 KB
# at 640 x 480), and so takes about as long to decode.
_GRAINS = ((4, 70), (16, 35), (64, 18), (640, 8))


class PictureError(Exception):
    """There are no pictures to send; the message says why."""


def sizes_of_mix(count: int) -> list[tuple[int, int]]:
    """So many sizes, (height, width), at equal steps through the mix, so that each is as frequent as in COCO."""
    ends = list(accumulate(COCO_SIZES.values()))
    steps = ((number + 0.5) * ends[-1] / count for number in range(count))
    sizes = list(COCO_SIZES)
    return [sizes[bisect_right(ends, step)] for step in steps]


def synthetic_pictures(count: int, scale: float = 1.0, seed: int = 0) -> list[bytes]:
    """JPEGs in COCO's size mix, each side multiplied by the scale."""
    sizes = [(max(1, round(h * scale)), max(1, round(w * scale))) for h, w in sizes_of_mix(count)]
    return [synthetic_jpeg(size, seed + number) for number, size in enumerate(sizes)]


def synthetic_jpeg(size: tuple[int, int], seed: int = 0) -> bytes:
    """A JPEG of (height, width), as rich in detail as a photo."""
    height, width = size
    rng = np.random.default_rng(seed)
    total = np.full((height, width, 3), 128, dtype=np.float32)
    for cells, spread in _GRAINS:
        grid = max(2, height * cells // 640), max(2, width * cells // 640), 3
        noise = rng.normal(128, spread, grid).clip(0, 255).astype(np.uint8)
        total += np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC), np.float32) - 128
    buffer = io.BytesIO()
    Image.fromarray(total.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def pictures_of(folder: Path) -> list[bytes]:
    """All JPEG, PNG and WebP files of a folder, in order of their names, as they are.

    Raises:
        PictureError: there is none, or one cannot be read.
    """
    try:
        files: Sequence[Path] = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
        found = [path.read_bytes() for path in files]
    except OSError as error:
        raise PictureError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise PictureError(f"{folder} has no JPEG, PNG or WebP files")
    return found
