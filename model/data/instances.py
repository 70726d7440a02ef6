"""The entries of COCO's instance annotations, as training and evaluation both read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from model.data.json_fields import flag, number_from, whole_number, wrong
from model.data.objects import BoxXywh, read_box


class InstanceRecord(NamedTuple):
    """An annotated object, or a crowd of them."""

    image_id: int
    category_id: int
    box_xywh: BoxXywh  # absolute pixels
    iscrowd: bool
    area: float  # pixels: that of the mask, where the file says it, else of the box
    where: str  # how complaints about it begin
    entry: dict[str, Any]  # as in the file


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
        yield InstanceRecord(image_id, category_id, box, iscrowd, _area(entry, box, where), where, entry)


def _area(entry: dict[str, Any], box: BoxXywh, where: str) -> float:
    value = entry.get("area")
    if value is None or value != value or value == "":
        return box[2] * box[3]
    area = number_from(value)
    if area is None or area < 0:
        raise wrong(where, "area", value, "a number of pixels, or absent")
    return area or box[2] * box[3]


def _name(entry: Any, position: int) -> str:
    """Its id, or where it stands if it has none that could be shown."""
    id_ = entry.get("id") if isinstance(entry, dict) else None
    return str(id_) if isinstance(id_, (int, str)) and len(str(id_)) <= 64 else f"number {position}"
