"""From a decoded image to what the network takes: the resize rule, and padding several images into one batch.

Normalization is only described here: the exported graph takes uint8 and normalizes inside, so that there is one place
for it and a batch in memory costs a quarter of what floats would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # who only puts images on a canvas waits for no Pillow
    from PIL import Image

# A canvas side divides by the backbone's largest stride. An image's valid cells at stride s are then exactly
# ceil(h / s) x ceil(w / s), at every stride, whatever it is batched with.
CANVAS_MULTIPLE = 32

CropBox = tuple[float, float, float, float]  # left, top, right, bottom in pixels, which may be fractions


@dataclass(frozen=True)
class Normalization:
    """What is subtracted from an image's RGB values in [0, 1], and what the difference is then divided by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Raise ValueError unless all are finite, and the deviations above 0."""
        if not all(map(math.isfinite, self.mean)):
            raise ValueError(f"a normalization needs finite means, not {self.mean}")
        if not all(0 < deviation < math.inf for deviation in self.std):
            raise ValueError(f"a normalization needs finite deviations above 0, not {self.std}")


# Of ImageNet's pictures, which every torchvision backbone was trained with.
IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ResizeRule:
    """How large the network sees an image: DETR (arXiv:2005.12872), section 4, uses 800 and 1333."""

    shortest_edge: int  # pixels, the target of the shorter side
    longest_edge: int  # pixels, what the longer side is kept to

    def __post_init__(self) -> None:
        """Raise ValueError unless 1 <= shortest_edge <= longest_edge."""
        if not 1 <= self.shortest_edge <= self.longest_edge:
            raise ValueError(f"a resize rule needs 1 <= shortest edge <= longest edge, not {self}")

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Size in pixels, (height, width) -> (height, width), each side at least 1.

        The same integers as the published implementation's rule (facebookresearch/detr,
        datasets/transforms.py): the shorter side becomes `shortest_edge`, unless the longer one would then
        pass `longest_edge`; in that case the shorter side is what that limit leaves it, rounded. The rounding
        can carry the longer side past the limit by half an aspect ratio (1334 for 1333 in ordinary panoramas,
        at worst twice the limit), and published results include that. Where the published rule rounds a side
        to zero and fails, a strip gets one pixel and the limit.

        Raises ValueError if a side is not positive.
        """
        if height < 1 or width < 1:
            raise ValueError(f"an image needs positive sides, not {height} x {width}")
        short, long = min(height, width), max(height, width)
        new_short = self.shortest_edge
        if long * new_short > self.longest_edge * short:
            new_short = round(self.longest_edge * short / long)
        if new_short == short:
            return height, width
        new_long = self.longest_edge if new_short == 0 else new_short * long // short
        new_short = max(new_short, 1)
        return (new_short, new_long) if height <= width else (new_long, new_short)


def resize(image: NDArray[np.uint8], rule: ResizeRule) -> NDArray[np.uint8]:
    """Resize RGB uint8 [H, W, 3] -> [h, w, 3]; the array itself comes back when its size is right already.

    Pillow's bilinear filter widens with the scale when it shrinks an image (it is antialiased), which is what
    the published weights were trained and measured with.
    """
    size = rule.size(image.shape[0], image.shape[1])
    if size == image.shape[:2]:
        return image
    from PIL import Image

    return resize_to(Image.fromarray(image), size)


def resize_to(image: Image.Image, size: tuple[int, int], box: CropBox | None = None) -> NDArray[np.uint8]:
    """Like `resize`, to (height, width) itself, of a whole RGB image or of a box of it; the result is an array."""
    width, height = image.size
    if size != (height, width) or box not in (None, (0, 0, width, height)):
        from PIL import Image

        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


@dataclass(frozen=True)
class Batch:
    """Images of several sizes on one canvas, each aligned to its top left corner."""

    images: NDArray[np.uint8]  # [B, H, W, 3], RGB, zero on padding
    padding_mask: NDArray[np.bool_]  # [B, H, W], True on padding
    sizes: tuple[tuple[int, int], ...]  # (h, w) in pixels of each image on the canvas

    @property
    def padding_ratio(self) -> float:
        """Fraction of the batch's pixels that are padding, 0 to 1: computed, and in no answer."""
        valid = sum(height * width for height, width in self.sizes)
        return 1.0 - valid / self.padding_mask.size


def make_batch(images: Sequence[NDArray[np.uint8]], multiple: int = CANVAS_MULTIPLE) -> Batch:
    """Put images [h, w, 3] uint8 on the smallest canvas that fits, with sides that `multiple` divides.

    Raises ValueError if there is no image, or CANVAS_MULTIPLE does not divide `multiple`.
    """
    if multiple < 1 or multiple % CANVAS_MULTIPLE:
        raise ValueError(f"a canvas has sides in multiples of {CANVAS_MULTIPLE}, so not of {multiple}")
    if not images:
        raise ValueError("a batch needs at least one image")
    sizes = tuple((image.shape[0], image.shape[1]) for image in images)
    height = round_up(max(height for height, _ in sizes), multiple)
    width = round_up(max(width for _, width in sizes), multiple)
    canvas = np.zeros((len(images), height, width, 3), dtype=np.uint8)
    padding_mask = np.ones((len(images), height, width), dtype=np.bool_)
    for index, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
        canvas[index, :h, :w] = image
        padding_mask[index, :h, :w] = False
    return Batch(canvas, padding_mask, sizes)


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple
