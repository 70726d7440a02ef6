"""The entries of COCO's instance annotations, as training and evaluation both read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.data.formats.coco_files import ImageRecord, class_index, class_indices
from model.data.formats.instance_masks import MaskAnnotation, NoMaskError, box_as_mask, read_segmentation
from model.data.formats.json_fields import flag, number_from, whole_number, wrong
from model.data.formats.objects import BoxXywh, read_box
from model.runtime.categories import Category

# COCO's evaluator ignores objects that are larger, and no picture is.
_LARGEST_AREA = 1e10


class InstanceRecord(NamedTuple):
    """An annotated object, or a crowd of them."""

    image_id: int
    category_id: int
    box_xywh: BoxXywh  # absolute pixels
    iscrowd: bool
    area: float  # pixels: that of the mask, where the file says it, else of the box
    where: str  # how complaints about it begin
    entry: dict[str, Any]  # as in the file


@dataclass(frozen=True)
class AnnotatedInstances:
    """The n annotations of an instances file, crowds as well: in the order of the pictures, and then of the file.

    Arrays, for the reason that `objects.Objects` gives.
    """

    numbers: NDArray[np.int64]  # [n], which of the file's annotations each is, from 1
    pictures: NDArray[np.int64]  # [n], the position of each one's picture among the records, ascending
    category_ids: NDArray[np.int64]  # [n]
    boxes_xywh: NDArray[np.float64]  # [n, 4], absolute pixels as in the file
    areas: NDArray[np.float64]  # [n], pixels
    iscrowd: NDArray[np.bool_]  # [n]
    segmentations: tuple[MaskAnnotation, ...] | None  # [n]; None where masks were not asked for

    @classmethod
    def read(
        cls,
        content: dict[str, Any],
        path: Path,
        records: Sequence[ImageRecord],
        categories: Sequence[Category],
        *,
        masks: bool,
    ) -> AnnotatedInstances:
        """Take them from what `read_annotations` returned for a file with these pictures and categories.

        Raises:
            NoMaskError: masks are asked for, and an object that is no crowd has none. (Of a crowd its box is taken.)
            ValueError: beginning with the file and the annotation, that it is malformed, or of an unknown picture or
                category.
        """
        indices = class_indices(categories)
        positions = {record.id: position for position, record in enumerate(records)}
        found: list[tuple[int, int, InstanceRecord, MaskAnnotation]] = []
        for number, instance in enumerate(read_instances(content, path), 1):
            class_index(indices, instance.category_id, instance.where)
            position = positions.get(instance.image_id)
            if position is None:
                raise ValueError(f"{instance.where} belongs to image {instance.image_id}, which is not in the file")
            found.append((position, number, instance, _mask(instance, records[position]) if masks else ()))
        found.sort(key=lambda each: each[:2])
        return cls(
            np.array([number for _, number, *_ in found], dtype=np.int64),
            np.array([position for position, *_ in found], dtype=np.int64),
            np.array([instance.category_id for *_, instance, _ in found], dtype=np.int64),
            np.array([instance.box_xywh for *_, instance, _ in found], dtype=np.float64).reshape(-1, 4),
            np.array([instance.area for *_, instance, _ in found], dtype=np.float64),
            np.array([instance.iscrowd for *_, instance, _ in found], dtype=np.bool_),
            tuple(mask for *_, mask in found) if masks else None,
        )

    def decoding_failed(self, path: Path, index: int, error: Exception) -> ValueError:
        """The complaint about the mask of one of them, which is only seen when it is decoded."""
        return ValueError(
            f"{path}: the segmentation of annotation number {self.numbers[index]} cannot be used: {error}"
        )


def _mask(instance: InstanceRecord, record: ImageRecord) -> MaskAnnotation:
    try:
        return read_segmentation(instance.entry, record, instance.where)
    except NoMaskError:
        if instance.iscrowd:
            return box_as_mask(instance.box_xywh, record)
        raise


def read_instances(content: dict[str, Any], path: Path) -> Iterator[InstanceRecord]:
    """The annotations of an instances file, in its order.

    Their ids name them in complaints and mean nothing else: whoever needs numbers gives his own. What tools leave out
    is what is the same everywhere: `iscrowd` is then 0, and `area`, which may also be 0 or NaN, that of the box.

    Raises:
        ValueError: beginning with the file and the annotation, that a field is malformed.
    """
    for position, entry in enumerate(content["annotations"], 1):
        where = f"{path}: annotation {_name(entry, position)}"
        image_id = whole_number(entry, "image_id", where)
        category_id = whole_number(entry, "category_id", where)
        box = read_box(entry, where)
        iscrowd = flag(entry, "iscrowd", where, default=False)
        yield InstanceRecord(image_id, category_id, box, iscrowd, read_area(entry, box, where), where, entry)


def read_area(entry: dict[str, Any], box: BoxXywh, where: str) -> float:
    """An annotation's area in pixels; where the file has none, that of its box.

    Raises ValueError, which begins with `where`, unless it is a number that an area can be.
    """
    value = entry.get("area")
    if value is None or value != value or value == "":
        return box[2] * box[3]
    area = number_from(value)
    if area is None or not 0 <= area <= _LARGEST_AREA:
        raise wrong(where, "area", value, f"a number of pixels, {_LARGEST_AREA:g} at most, or absent")
    return area or box[2] * box[3]


def _name(entry: Any, position: int) -> str:
    """Its id, or where it stands if it has none that could be shown."""
    id_ = entry.get("id") if isinstance(entry, dict) else None
    return str(id_) if isinstance(id_, (int, str)) and len(str(id_)) <= 64 else f"number {position}"
