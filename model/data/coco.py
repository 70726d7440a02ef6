"""COCO's instance annotations as a torch data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from torch import Tensor

from model.data.coco_dataset import CocoDataset, Transform, boxes_xywh_to_xyxy
from model.data.coco_files import (
    ImageRecord,
    Target,
    class_index,
    class_indices,
    make_target,
    read_annotations,
)
from model.runtime.categories import Category


@dataclass(frozen=True, slots=True)
class _Instance:
    """What is kept of an annotation, undecoded."""

    label: int
    box_xywh: tuple[float, float, float, float]
    segmentation: Any  # polygons or RLE as in the file; None where masks are not asked for


class CocoDetection(CocoDataset):
    """Pictures with the boxes and, if asked, the masks of their things.

    An item is the picture, uint8 [3, height, width], and its target (keys of `coco_files.Target`), with boxes
    as `BoundingBoxes` in xyxy of absolute pixels; `transform` then has the last word on both. Crowds are left
    out: they are regions of many objects, not targets for one query.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        *,
        categories: Sequence[Category] | None = None,
        masks: bool = False,
        transform: Transform | None = None,
    ) -> None:
        """Read the annotation file; pictures and masks are decoded when an item is asked for.

        Args:
            images: folder of the pictures.
            annotations: COCO's instances JSON.
            categories: the network's classes by index; by default those of the file, ordered by id.
            masks: whether targets hold masks.
            transform: applied to every item.

        Raises:
            FileNotFoundError: if there is no such annotation file.
            ValueError: if it is malformed, lists no image, or an annotation has an unknown category or image.
        """
        content = read_annotations(annotations)
        super().__init__(content, images, categories, masks, transform)
        self._instances = self._read_instances(content["annotations"], annotations)

    def _read_instances(self, entries: list[dict[str, Any]], path: Path) -> dict[int, list[_Instance]]:
        """Group the annotations that are not crowds by image id."""
        indices = class_indices(self.categories)
        known = {record.id for record in self.records}
        instances: dict[int, list[_Instance]] = defaultdict(list)
        for entry in entries:
            where = f"{path}: annotation {entry['id']}"
            label = class_index(indices, entry["category_id"], where)
            if entry["image_id"] not in known:
                raise ValueError(f"{where} belongs to image {entry['image_id']}, which is not in the file")
            if not entry.get("iscrowd", 0):
                segmentation = entry["segmentation"] if self.masks else None
                instances[entry["image_id"]].append(_Instance(label, tuple(entry["bbox"]), segmentation))
        return dict(instances)

    def target(self, index: int) -> Target:
        """What is in one picture, before any transform."""
        record = self.records[index]
        instances = self._instances.get(record.id, [])
        boxes = boxes_xywh_to_xyxy([i.box_xywh for i in instances])
        masks = decode_masks([i.segmentation for i in instances], record) if self.masks else None
        return make_target(record, [i.label for i in instances], boxes, masks)


def decode_masks(segmentations: Sequence[Any], record: ImageRecord) -> Tensor:
    """Decode polygons and RLE, compressed or not, to masks: uint8 [m, height, width] of 0 and 1."""
    masks = np.zeros((len(segmentations), record.height, record.width), dtype=np.uint8)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        mask[:] = _decode(segmentation, record)
    return torch.from_numpy(masks)


def _decode(segmentation: Any, record: ImageRecord) -> NDArray[np.uint8]:
    if isinstance(segmentation, list):
        # One object may be several polygons, where something in front of it cuts it apart.
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, record.height, record.width))
    elif isinstance(segmentation["counts"], list):
        rle = coco_mask.frPyObjects(segmentation, record.height, record.width)
    else:
        rle = segmentation
    decoded: NDArray[np.uint8] = coco_mask.decode(rle)
    return decoded
