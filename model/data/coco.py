"""COCO's instance annotations as a torch data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from model.data.coco_dataset import CocoDataset, make_target
from model.data.coco_files import ImageRecord, Target, class_index, class_indices, read_annotations
from model.data.instance_masks import MaskAnnotation, decode_mask, read_segmentation
from model.data.instances import read_instances
from model.data.mask_layers import MaskLayers, layers_of
from model.data.objects import BoxXywh, Objects, boxes_xywh_to_xyxy


class _Kept(NamedTuple):
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
        found, crowds = self._kept(content)
        self.objects = Objects.gather([[instance[:2] for instance in instances] for instances in found], crowds)
        self._segmentations = [instance.segmentation for instances in found for instance in instances]

    def _kept(self, content: dict[str, Any]) -> tuple[list[list[_Kept]], int]:
        """The annotations of every picture that are not crowds, in the order of `records`, and the number of crowds."""
        indices = class_indices(self.categories)
        positions = {record.id: position for position, record in enumerate(self.records)}
        found: list[list[_Kept]] = [[] for _ in self.records]
        crowds = 0
        for instance in read_instances(content, self.annotations):
            label = class_index(indices, instance.category_id, instance.where)
            position = positions.get(instance.image_id)
            if position is None:
                raise ValueError(f"{instance.where} belongs to image {instance.image_id}, which is not in the file")
            if instance.iscrowd:
                crowds += 1
                continue
            segmentation = None
            if self.masks:
                segmentation = read_segmentation(instance.entry, self.records[position], instance.where)
            found[position].append(_Kept(label, instance.box_xywh, segmentation))
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
