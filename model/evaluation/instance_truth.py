"""What is annotated of things, as COCO's evaluator takes it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from model.data.formats.annotations import Annotations
from model.data.formats.coco import CocoDetection
from model.data.formats.coco_files import ImageRecord, read_annotations, read_categories, read_records
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.instance_masks import NoMaskError, run_lengths
from model.data.formats.instances import AnnotatedInstances
from model.runtime.categories import Category


class InstanceTruth:
    """The annotated boxes and, where they were read, masks of an instances file.

    COCO's evaluator takes annotations by their ids: 0 is its "none", and equal ones replace each other. So it gets
    numbers of ours, for pictures too, and the file's ids are never asked.
    """

    def __init__(
        self,
        file: Path,
        records: Sequence[ImageRecord],
        categories: Sequence[Category],
        instances: AnnotatedInstances,
        without_masks: str = "",
    ) -> None:
        """Take over what was read of a file.

        Args:
            file: for complaints.
            records: its pictures, in the order of their ids, which decides between equal scores.
            categories: its categories.
            instances: what is annotated, with masks where these are to be judged.
            without_masks: why there are no masks, where they were asked for.

        Raises:
            ValueError: run lengths are broken.
        """
        self.file = file
        self.without_masks = without_masks
        self.has_masks = instances.segmentations is not None
        self.category_ids = frozenset(category.id for category in categories)
        self._records = records
        self._numbers = {record.id: number for number, record in enumerate(records, 1)}
        self.coco = self.indexed([self._entry(instances, i) for i in range(len(instances.pictures))])

    @classmethod
    def of(cls, data: CocoDetection, without_masks: str = "") -> InstanceTruth:
        """That of a data set which reads an instances file; with masks if it has them."""
        return cls(data.annotations, data.records, data.categories, data.instances, without_masks)

    @classmethod
    def read(cls, file: Path, *, masks: bool, read: Annotations | None = None) -> InstanceTruth:
        """That of an instances file, or of what was read of it; if it lacks masks that are asked for, it says so.

        Raises:
            FileNotFoundError, ValueError: as in `CocoDetection`.
        """
        content, without = read.content if read else read_annotations(file), ""
        records, categories = read_records(content, file), read_categories(content, file)
        try:
            instances = AnnotatedInstances.read(content, file, records, categories, masks=masks)
        except NoMaskError as error:
            instances, without = AnnotatedInstances.read(content, file, records, categories, masks=False), str(error)
        return cls(file, records, categories, instances, without)

    @classmethod
    def of_segments(cls, data: CocoPanoptic, without_masks: str) -> InstanceTruth:
        """The boxes of the things of panoptic data, where no instances file has them."""
        found = [
            (picture, segment)
            for picture in range(len(data))
            for segment in data.segments_of(picture)
            if data.categories[segment.label].isthing
        ]
        segments = [segment for _, segment in found]
        instances = AnnotatedInstances(
            np.arange(1, len(found) + 1),
            np.array([picture for picture, _ in found], dtype=np.int64),
            np.array([data.categories[segment.label].id for segment in segments], dtype=np.int64),
            np.array([segment.box_xywh for segment in segments], dtype=np.float64).reshape(-1, 4),
            np.array([segment.area for segment in segments], dtype=np.float64),
            np.array([segment.iscrowd for segment in segments], dtype=np.bool_),
            None,
        )
        things = [category for category in data.categories if category.isthing]
        return cls(data.annotations, data.records, things, instances, without_masks)

    @property
    def images(self) -> Collection[int]:
        """The ids of the pictures."""
        return self._numbers.keys()

    def of_picture(self, image_id: int) -> list[dict[str, Any]]:
        """COCO's annotations of a picture: bbox, category_id, area, iscrowd and, if there are masks, segmentation."""
        return self.coco.imgToAnns.get(self.number(image_id), [])

    def number(self, image_id: int) -> int:
        """What COCO's evaluator calls a picture."""
        return self._numbers[image_id]

    def size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of a picture in pixels."""
        record = self._records[self.number(image_id) - 1]
        return record.height, record.width

    def indexed(self, entries: Sequence[dict[str, Any]]) -> COCO:
        """Annotations or detections of the same pictures, as COCO's evaluator takes them."""
        coco = COCO()
        images = [
            {"id": number, "height": record.height, "width": record.width}
            for number, record in enumerate(self._records, 1)
        ]
        coco.dataset = {
            "images": images,
            "annotations": entries,
            "categories": [{"id": id_} for id_ in sorted(self.category_ids)],
        }
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            coco.createIndex()
        return coco

    def _entry(self, instances: AnnotatedInstances, index: int) -> dict[str, Any]:
        position = int(instances.pictures[index])
        entry = {
            "id": index + 1,
            "image_id": position + 1,
            "category_id": int(instances.category_ids[index]),
            "bbox": instances.boxes_xywh[index].tolist(),
            "area": float(instances.areas[index]),
            "iscrowd": int(instances.iscrowd[index]),
        }
        if instances.segmentations is None:
            return entry
        record = self._records[position]
        try:
            return entry | {"segmentation": run_lengths(instances.segmentations[index], record)}
        except ValueError as error:
            raise instances.decoding_failed(self.file, index, error) from error
