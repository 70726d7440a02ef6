"""The boxes and classes of a whole annotation file, in a few arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.data.formats.json_fields import field_of, number_from, wrong

BoxXywh = tuple[float, float, float, float]

# No picture is this large; a box beyond it is a mistake, and so are infinity and NaN, which compare like it.
_FARTHEST_PIXEL = 1e7


@dataclass(frozen=True)
class Objects:
    """The n objects of all pictures, crowds left out.

    Arrays, because a list of Python objects would be copied, page by page, into every process that loads data:
    counting references is writing.
    """

    labels: NDArray[np.int64]  # [n], class indices
    boxes_xywh: NDArray[np.float64]  # [n, 4], absolute pixels as in the file
    starts: NDArray[np.int64]  # [pictures + 1], the first object of each picture
    crowds: int  # how many were left out

    @classmethod
    def gather(cls, found: Sequence[Sequence[tuple[int, BoxXywh]]], crowds: int) -> Objects:
        """From the label and box of every object of every picture."""
        every = [pair for objects in found for pair in objects]
        return cls(
            np.array([label for label, _ in every], dtype=np.int64),
            np.array([box for _, box in every], dtype=np.float64).reshape(-1, 4),
            np.cumsum([0, *(len(objects) for objects in found)], dtype=np.int64),
            crowds,
        )

    def of(self, index: int) -> slice:
        """Where the objects of a picture are."""
        return slice(int(self.starts[index]), int(self.starts[index + 1]))

    @property
    def pictures(self) -> NDArray[np.int64]:
        """The picture of every object, int64 [n]."""
        return np.repeat(np.arange(len(self.starts) - 1), self.counts)

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many objects each picture has, int64 [pictures]."""
        return np.diff(self.starts)


def read_box(entry: dict[str, Any], where: str) -> BoxXywh:
    """An annotation's box; where a tool wrote none beside the polygons of an object, the box around them.

    Raises ValueError, which begins with `where`, unless it is four pixel numbers of size 0 or more.
    """
    box = entry.get("bbox")
    if box is None or box == []:
        box = _around(entry.get("segmentation"))
    if box is None:
        box = field_of(entry, "bbox", where)
    numbers = [number_from(value) for value in box] if isinstance(box, list) and len(box) == 4 else [None]
    left, top, width, height = (numbers * 4)[:4]
    if not (_is_coordinate(left) and _is_coordinate(top) and _is_coordinate(width) and _is_coordinate(height)):
        raise wrong(where, "bbox", box, "four numbers of pixels, left, top, width and height")
    if width < 0 or height < 0:
        raise ValueError(f"{where} has bbox {box}: its width and height must not be negative")
    return left, top, width, height


def _around(segmentation: Any) -> list[float] | None:
    """The box around polygons; None where there are none."""
    if not isinstance(segmentation, list):
        return None
    flat = [value for part in segmentation for value in (part if isinstance(part, list) else [part])]
    numbers = [number for number in map(number_from, flat) if number is not None]
    if len(numbers) < 6 or len(numbers) != len(flat):
        return None
    xs, ys = numbers[::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _is_coordinate(value: float | None) -> TypeGuard[float]:
    return value is not None and -_FARTHEST_PIXEL < value < _FARTHEST_PIXEL


def boxes_xywh_to_xyxy(boxes: NDArray[np.float64]) -> Tensor:
    """COCO's boxes (left, top, width, height) as corners, float32 [m, 4], m may be 0."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


def clipped_xyxy(boxes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [m, 4] clipped to their pictures, and which of them have an area then, bool [m].

    `sizes` is the (height, width) of the pictures: [2] of all, or [m, 2] of each.
    """
    limits = sizes.flip(-1).to(boxes.dtype).repeat(1, 2) if sizes.ndim == 2 else sizes.flip(0).to(boxes.dtype).repeat(2)
    clipped = boxes.clamp(min=0).minimum(limits)
    return clipped, (clipped[:, 2:] > clipped[:, :2]).all(dim=1)
