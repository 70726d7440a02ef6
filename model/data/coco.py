"""COCO's instance annotations as a torch data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from model.data.coco_dataset import CocoDataset, make_target
from model.data.coco_files import ImageRecord, Target, class_index, class_indices, field_of, read_annotations
from model.data.instance_masks import MaskAnnotation, decode_mask, read_segmentation
from model.data.mask_layers import MaskLayers, layers_of
from model.data.objects import BoxXywh, Objects, boxes_xywh_to_xyxy, read_box


class _Instance(NamedTuple):
    """What is kept of an annotation."""

    label: int
    box_xywh: BoxXywh
    segmentation: MaskAnnotation | None  # None where masks are not asked for


class CocoDetection(CocoDataset):
    """Pictures with the boxes and, if asked, the masks of their things.

    An item is the picture, uint8 [3, height, width], and its target (keys of `coco_files.Target`), with boxes
    as `BoundingBoxes` in xyxy of absolute pixels. Crowds are left out: they are regions of many objects, not targets
    for one query.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        *,
        masks: bool = False,
    ) -> None:
        """Read the annotation file; pictures and masks are decoded when an item is asked for.

        Args:
            images: folder of the pictures.
            annotations: COCO's instances JSON.
            masks: whether targets hold masks.

        Raises:
            FileNotFoundError: if there is no such annotation file.
            ValueError: if it is malformed, lists no image or no category, or an annotation has an unknown category or
                image, a box that is none or, where masks are asked for, no usable segmentation.
        """
        content = read_annotations(annotations)
        super().__init__(content, annotations, images, masks)
        found, crowds = self._read_instances(content["annotations"])
        self.objects = Objects.gather([[instance[:2] for instance in instances] for instances in found], crowds)
        self._segmentations = [instance.segmentation for instances in found for instance in instances]

    def _read_instances(self, entries: list[dict[str, Any]]) -> tuple[list[list[_Instance]], int]:
        """The annotations of every picture that are not crowds, in the order of `records`, and the number of crowds."""
        indices = class_indices(self.categories)
        positions = {record.id: position for position, record in enumerate(self.records)}
        found: list[list[_Instance]] = [[] for _ in self.records]
        crowds = 0
        for entry in entries:
            where = f"{self.annotations}: annotation {field_of(entry, 'id', f'{self.annotations}: an annotation')}"
            label = class_index(indices, field_of(entry, "category_id", where), where)
            image_id = field_of(entry, "image_id", where)
            if image_id not in positions:
                raise ValueError(f"{where} belongs to image {image_id}, which is not in the file")
            box = read_box(entry, where)
            if entry.get("iscrowd", 0):
                crowds += 1
                continue
            position = positions[image_id]
            segmentation = read_segmentation(entry, self.records[position], where) if self.masks else None
            found[position].append(_Instance(label, box, segmentation))
        return found, crowds

    def target(self, index: int) -> Target:
        """What is in one picture. Raises ValueError if the run lengths of a mask are broken."""
        record, here = self.records[index], self.objects.of(index)
        boxes = boxes_xywh_to_xyxy(self.objects.boxes_xywh[here])
        layers = self._layers(record, here) if self.masks else None
        return make_target(record, self.objects.labels[here], boxes, layers)

    def _layers(self, record: ImageRecord, here: slice) -> MaskLayers:
        segmentations = [segmentation for segmentation in self._segmentations[here] if segmentation is not None]
        try:
            return layers_of((decode_mask(one, record) for one in segmentations), (record.height, record.width))
        except ValueError as error:
            raise ValueError(f"{self.annotations}: a mask of image {record.id} cannot be decoded: {error}") from error
