"""COCO's panoptic annotations as a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.data.formats.annotations import Annotations
from model.data.formats.coco_dataset import CocoDataset, make_target
from model.data.formats.coco_files import (
    ImageRecord,
    PanopticEntry,
    Target,
    class_index,
    class_indices,
    panoptic_entries,
    read_annotations,
)
from model.data.formats.file_names import FileNames
from model.data.formats.id_png import read_ids
from model.data.formats.instances import read_area
from model.data.formats.mask_layers import MaskLayers, layer_of_segments, tight_boxes_xyxy
from model.data.formats.objects import BoxXywh, Objects, boxes_xywh_to_xyxy, read_box


class AnnotatedSegment(NamedTuple):
    """A segment of a picture, or a region of many of one category."""

    id: int  # in the picture's PNG
    label: int  # class index
    box_xywh: BoxXywh  # absolute pixels
    iscrowd: bool
    area: float  # pixels


class CocoPanoptic(CocoDataset):
    """Pictures with the boxes and masks of their things and stuff.

    A stuff segment is a target like any other, with a box around all its pixels, as in DETR
    (arXiv:2005.12872, section 4.4). Items are those of `CocoDetection`, with one more key: isthing, bool [m].
    """

    def __init__(
        self,
        images: Path | Sequence[Path],
        annotations: Path,
        *,
        masks: bool = True,
        read: Annotations | None = None,
    ) -> None:
        """Read the annotation file; pictures and segments are decoded when an item is asked for.

        Args:
            images: folder of the pictures, or several, of which the one is taken that holds the first pictures.
            annotations: COCO's panoptic JSON; the id PNGs are in the folder beside it that has its name.
            masks: whether targets hold masks. Without, no PNG is read and boxes are those of the file.
            read: what was read of it; by default it is read here.

        Raises:
            FileNotFoundError: if there is no such annotation file.
            ValueError: if it is malformed, lists no image or no category, has an image without an entry, or a segment
                of an unknown category or with a box that is none.
        """
        read = read or Annotations(read_annotations(annotations))
        super().__init__(read, annotations, images, masks)
        self.segments = annotations.with_suffix("")
        self._isthing = torch.tensor([category.isthing for category in self.categories])
        entries = self._entries(panoptic_entries(read.content, annotations))
        self._png_names = self._found([entry.file_name for entry in entries])
        indices = class_indices(self.categories)
        found = [self._read_segments(entry, indices) for entry in entries]
        single = [[segment for segment in segments if not segment.iscrowd] for segments in found]
        self._crowds = {i: crowds for i, every in enumerate(found) if (crowds := [one for one in every if one.iscrowd])}
        self.objects = Objects.gather(
            [[(segment.label, segment.box_xywh) for segment in segments] for segments in single],
            sum(map(len, self._crowds.values())),
        )
        every = [segment for segments in single for segment in segments]
        self._segment_ids = np.array([segment.id for segment in every], dtype=np.int64)
        self._areas = np.array([segment.area for segment in every], dtype=np.float64)

    def _found(self, names: list[str]) -> list[str]:
        try:
            return FileNames(self.segments).find(names)
        except ValueError as error:
            raise ValueError(f"{self.annotations}: {error}") from error

    def _entries(self, by_image: dict[int, PanopticEntry]) -> list[PanopticEntry]:
        """The entry of every picture, in the order of `records`."""
        for record in self.records:
            if record.id not in by_image:
                raise ValueError(f"{self.annotations}: image {record.id} has no annotation")
        return [by_image[record.id] for record in self.records]

    def _read_segments(self, entry: PanopticEntry, indices: dict[int, int]) -> list[AnnotatedSegment]:
        segments = []
        for segment in entry.segments:
            label = class_index(indices, segment.category_id, segment.where)
            box = read_box(segment.info, segment.where)
            area = read_area(segment.info, box, segment.where)
            segments.append(AnnotatedSegment(segment.id, label, box, segment.iscrowd, area))
        return segments

    def segments_of(self, index: int) -> list[AnnotatedSegment]:
        """What is annotated in one picture, crowds last."""
        here = self.objects.of(index)
        columns = (self._segment_ids, self.objects.labels, self.objects.boxes_xywh, self._areas)
        rows = zip(*(column[here].tolist() for column in columns), strict=True)
        single = [
            AnnotatedSegment(id_, label, (box[0], box[1], box[2], box[3]), False, area)
            for id_, label, box, area in rows
        ]
        return single + self._crowds.get(index, [])

    def png(self, index: int) -> ImageRecord:
        """The id PNG of a picture; its file name is relative to `segments`."""
        record = self.records[index]
        return ImageRecord(record.id, self._png_names[index], record.height, record.width)

    def target(self, index: int) -> Target:
        """What is in one picture.

        Raises what `read_ids` does, and ValueError if a segment has no pixel in it.
        """
        here = self.objects.of(index)
        layers = self._layers(index, here) if self.masks else None
        boxes = boxes_xywh_to_xyxy(self.objects.boxes_xywh[here]) if layers is None else tight_boxes_xyxy(layers)
        if layers is not None:
            self._refuse_missing(index, boxes, here)
        target = make_target(self.records[index], self.objects.labels[here], boxes, layers)
        target["isthing"] = self._isthing[target["labels"]]
        return target

    def _layers(self, index: int, here: slice) -> MaskLayers:
        return layer_of_segments(read_ids(self.segments, self.png(index)), self._segment_ids[here].tolist())

    def _refuse_missing(self, index: int, boxes_xyxy: Tensor, here: slice) -> None:
        for segment_id, right in zip(self._segment_ids[here].tolist(), boxes_xyxy[:, 2].tolist(), strict=True):
            if right == 0:
                png = self.segments / self.png(index).file_name
                raise ValueError(f"image {self.records[index].id}, {png}: segment {segment_id} has no pixel")
