"""COCO's panoptic annotations as a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.data.coco_dataset import CocoDataset, Transform, boxes_xywh_to_xyxy
from model.data.coco_files import (
    ImageRecord,
    Target,
    class_index,
    class_indices,
    make_target,
    read_annotations,
    read_image,
)
from model.runtime.categories import Category


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments of one picture, crowds left out."""

    file_name: str
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    boxes_xywh: tuple[tuple[float, float, float, float], ...]


class CocoPanoptic(CocoDataset):
    """Pictures with the boxes and masks of their things and stuff.

    A stuff segment is a target like any other, with a box around all its pixels, as in DETR
    (arXiv:2005.12872, section 4.4). Items are those of `CocoDetection`, with one more key: isthing, bool [m].
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        *,
        segments: Path | None = None,
        categories: Sequence[Category] | None = None,
        masks: bool = True,
        transform: Transform | None = None,
    ) -> None:
        """Read the annotation file; pictures and segments are decoded when an item is asked for.

        Args:
            images: folder of the pictures.
            annotations: COCO's panoptic JSON.
            segments: folder of the id PNGs; by default the one beside the JSON that has its name.
            categories: the network's classes by index; by default those of the file, ordered by id.
            masks: whether targets hold masks. Without, no PNG is read and boxes are those of the file.
            transform: applied to every item.

        Raises:
            FileNotFoundError: if there is no such annotation file.
            ValueError: if it is malformed, lists no image, has an image without an entry, or a segment of an
                unknown category.
        """
        content = read_annotations(annotations)
        super().__init__(content, images, categories, masks, transform)
        self.segments = segments if segments is not None else annotations.with_suffix("")
        self._isthing = torch.tensor([category.isthing for category in self.categories])
        self._segments = self._read_segments(content["annotations"], annotations)

    def _read_segments(self, entries: list[dict[str, Any]], path: Path) -> list[_Segments]:
        """The segments of every picture, in the order of `records`."""
        indices = class_indices(self.categories)
        by_image = {entry["image_id"]: entry for entry in entries}
        segments = []
        for record in self.records:
            if record.id not in by_image:
                raise ValueError(f"{path}: image {record.id} has no annotation")
            entry = by_image[record.id]
            kept = [info for info in entry["segments_info"] if not info.get("iscrowd", 0)]
            where = f"{path}: image {record.id}, segment"
            labels = (class_index(indices, info["category_id"], f"{where} {info['id']}") for info in kept)
            ids, boxes = (info["id"] for info in kept), (tuple(info["bbox"]) for info in kept)
            segments.append(_Segments(entry["file_name"], tuple(ids), tuple(labels), tuple(boxes)))
        return segments

    def target(self, index: int) -> Target:
        """What is in one picture, before any transform.

        Raises what `coco_files.read_image` does, for the PNG, and ValueError if a segment has no pixel in it.
        """
        record, segments = self.records[index], self._segments[index]
        masks = self._read_masks(record, segments) if self.masks else None
        boxes = boxes_xywh_to_xyxy(segments.boxes_xywh) if masks is None else masks_to_boxes_xyxy(masks)
        target = make_target(record, segments.labels, boxes, masks)
        target["isthing"] = self._isthing[target["labels"]]
        return target

    def _read_masks(self, record: ImageRecord, segments: _Segments) -> Tensor:
        """The mask of every segment, uint8 [m, height, width] of 0 and 1."""
        png = ImageRecord(record.id, segments.file_name, record.height, record.width)
        id_map = decode_ids(torch.as_tensor(read_image(self.segments, png)))
        masks = id_map == torch.tensor(segments.ids, dtype=torch.int32).view(-1, 1, 1)
        for segment_id, found in zip(segments.ids, masks.flatten(1).any(dim=1).tolist(), strict=True):
            if not found:
                raise ValueError(f"{self.segments / png.file_name}: segment {segment_id} has no pixel")
        return masks.to(torch.uint8)


def decode_ids(png: Tensor) -> Tensor:
    """Segment ids, int32 [h, w], of an id PNG, uint8 [3, h, w]: red + 256 * green + 256 * 256 * blue."""
    red, green, blue = png.to(torch.int32).unbind()
    return red + 256 * green + 65536 * blue


def masks_to_boxes_xyxy(masks: Tensor) -> Tensor:
    """Tight boxes, float32 [m, 4] in absolute pixels, of masks [m, h, w] that each have a pixel.

    The right and lower sides lie past the last pixel, so a box of one pixel has an area of 1, as in COCO.
    """
    boxes = torch.zeros((len(masks), 4))
    for axis, side in ((0, 1), (1, 2)):  # columns are found by looking down, rows by looking across
        occupied = masks.amax(dim=side)  # (m, width) or (m, height)
        length = occupied.shape[1]
        boxes[:, axis] = occupied.argmax(dim=1).float()
        boxes[:, axis + 2] = length - occupied.flip(1).argmax(dim=1).float()
    return boxes
