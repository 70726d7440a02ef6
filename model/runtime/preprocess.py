"""From a decoded image to what the network takes: resizing by a rule, and padding several images into one batch.

Normalization is only described here: the exported graph takes uint8 and normalizes inside, so that there is one place
for it and a batch in memory costs a quarter of what floats would.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.resampling import CropBox, resample
from model.runtime.resize_rule import ResizeRule

if TYPE_CHECKING:  # who only puts images on a canvas waits for no Pillow
    from PIL import Image

# A canvas side divides by the backbone's largest stride. An image's valid cells at stride s are then exactly
# ceil(h / s) x ceil(w / s), at every stride, whatever it is batched with.
CANVAS_MULTIPLE = 32


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

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Normalization:
        """What `dataclasses.asdict` and JSON made of one. Raises ValueError naming the field that is wrong."""
        found = {}
        for name in ("mean", "std"):
            value = record.get(name)
            if not isinstance(value, list) or len(value) != 3 or not all(type(part) in (int, float) for part in value):
                raise ValueError(f"field {f'normalization.{name}'!r} is not three numbers")
            found[name] = (float(value[0]), float(value[1]), float(value[2]))
        return cls(**found)


# Of ImageNet's pictures, which every torchvision backbone was trained with.
IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def resize(image: NDArray[np.uint8], rule: ResizeRule) -> NDArray[np.uint8]:
    """Resize RGB uint8 [H, W, 3] -> [h, w, 3], see `resize_to`; the array itself comes back when its size is right."""
    size = rule.size(image.shape[0], image.shape[1])
    if size == image.shape[:2]:
        return image
    from PIL import Image

    return resize_to(Image.fromarray(image), size)


def resize_to(
    picture: Image.Image, size: tuple[int, int], box: CropBox | None = None, multiple: int = CANVAS_MULTIPLE
) -> NDArray[np.uint8]:
    """An RGB or RGBX picture, or a box of it, as an array of (height, width), [h, w, 3]: `resample` has how.

    It lies on a canvas of its own, with sides that `multiple` divides, so that `make_batch` copies nothing where the
    picture goes alone.
    """
    height, width = size
    canvas = np.empty((1, round_up(height, multiple), round_up(width, multiple), 3), dtype=np.uint8)
    canvas[0, height:] = 0
    canvas[0, :height, width:] = 0
    image = canvas[0, :height, :width]
    whole = (0.0, 0.0, float(picture.width), float(picture.height))
    if picture.size == (width, height) and (box is None or box == whole):
        image[...] = np.asarray(picture)[..., :3]
    else:
        resample(picture, canvas[0], size, box or whole)
    return image


@dataclass(frozen=True)
class Batch:
    """Images of several sizes on one canvas, each aligned to its top left corner."""

    images: NDArray[np.uint8]  # [B, H, W, 3], RGB, zero on padding
    padding_mask: NDArray[np.bool_]  # [B, H, W], True on padding; it may be another batch's as well
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
    padding_mask = _kept_mask.of(sizes, height, width) if len(set(sizes)) == 1 else _padding_mask(sizes, height, width)
    canvas = _own_canvas(images[0], height, width) if len(images) == 1 else None
    if canvas is None:
        canvas = np.empty((len(images), height, width, 3), dtype=np.uint8)
        for place, image, size in zip(canvas, images, sizes, strict=True):
            _lay(place, image, size, padding=np.uint8(0))
    return Batch(canvas, padding_mask, sizes)


def _padding_mask(sizes: Sequence[tuple[int, int]], height: int, width: int) -> NDArray[np.bool_]:
    """True on padding [B, height, width], of images of these sizes."""
    padding_mask = np.empty((len(sizes), height, width), dtype=np.bool_)
    for mask, size in zip(padding_mask, sizes, strict=True):
        _lay(mask, np.False_, size, padding=np.True_)
    return padding_mask


class _KeptMask:
    """The last padding mask of a batch whose images were all of one size, as most batches' are, to be used again: to
    write 0.9 MB for each picture is a third of what it takes to put it on a canvas. Any thread may ask.
    """

    def __init__(self) -> None:
        self._kept = ((0, 0), np.empty((0, 0, 0), dtype=np.bool_))

    def of(self, sizes: Sequence[tuple[int, int]], height: int, width: int) -> NDArray[np.bool_]:
        """See `_padding_mask`; nobody may write to it."""
        size, mask = self._kept
        if size != sizes[0] or mask.shape[1:] != (height, width) or len(mask) < len(sizes):
            mask = _padding_mask(sizes, height, width)  # not read-only, or OpenVINO would copy it, and torch warn
            self._kept = sizes[0], mask
        return mask[: len(sizes)]


_kept_mask = _KeptMask()


def _lay(
    canvas: NDArray[np.generic], inside: NDArray[np.generic] | np.generic, size: tuple[int, int], padding: np.generic
) -> None:
    """Fill a canvas [H, W, ...]: what is inside of (height, width) and what is beside it, each of its bytes once."""
    height, width = size
    canvas[:height, :width] = inside
    canvas[:height, width:] = padding
    canvas[height:] = padding


def _own_canvas(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8] | None:
    """The canvas [1, height, width, 3] that an image lies on already, as `resize_to` leaves it, with nothing beside it;
    None if it lies elsewhere.
    """
    canvas = image.base
    if not isinstance(canvas, np.ndarray) or canvas.shape != (1, height, width, 3) or canvas.dtype != image.dtype:
        return None
    h, w = image.shape[:2]
    is_at_corner = image.ctypes.data == canvas.ctypes.data and image.strides == canvas.strides[1:]
    if not (is_at_corner and canvas.flags.c_contiguous) or canvas[0, h:].any() or canvas[0, :h, w:].any():
        return None
    return canvas


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple
