"""COCO's panoptic annotations as panoptic quality wants them, crowds included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.data.coco_files import ImageRecord, class_index, class_indices, read_annotations
from model.data.id_png import read_ids
from model.evaluation.panoptic_quality import PanopticMap
from model.runtime.categories import Category


class SegmentAnnotations:
    """The annotated segments of every picture. A crowd is no target for a query, but it is not void either."""

    def __init__(self, path: Path, categories: Sequence[Category]) -> None:
        """Read a panoptic file; its id PNGs lie in the folder beside it that has its name.

        Raises what `read_annotations` does, and ValueError naming a segment of an unknown category.
        """
        indices = class_indices(categories)
        self._folder = path.with_suffix("")
        self._entries = {entry["image_id"]: entry for entry in read_annotations(path)["annotations"]}
        for entry in self._entries.values():
            for info in entry["segments_info"]:
                class_index(indices, info["category_id"], f"{path.name}: segment {info['id']}")

    def of(self, record: ImageRecord) -> PanopticMap:
        """The segments of one picture. Raises what `read_ids` does."""
        entry = self._entries[record.id]
        png = ImageRecord(record.id, entry["file_name"], record.height, record.width)
        id_map = read_ids(self._folder, png)
        infos = entry["segments_info"]
        crowds = frozenset(info["id"] for info in infos if info.get("iscrowd", 0))
        return PanopticMap(id_map, {info["id"]: info["category_id"] for info in infos}, crowds)
