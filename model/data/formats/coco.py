"""COCO's instance annotations as a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.formats.annotations import Annotations
from model.data.formats.coco_dataset import CocoDataset, make_target
from model.data.formats.coco_files import ImageRecord, Target, read_annotations
from model.data.formats.instance_masks import decode_mask
from model.data.formats.instances import AnnotatedInstances
from model.data.formats.mask_layers import MaskLayers, layers_of
from model.data.formats.objects import Objects, boxes_xywh_to_xyxy


class CocoDetection(CocoDataset):
    """Pictures with the boxes and, if asked, the masks of their things.

    An item is the picture, uint8 [3, height, width], and its target (keys of `coco_files.Target`), with boxes
    as `BoundingBoxes` in xyxy of absolute pixels. Crowds are left out of it: they are regions of many objects, not
    targets for one query. `instances` has them, for evaluation.
    """

    def __init__(
        self,
        images: Path | Sequence[Path],
        annotations: Path,
        *,
        masks: bool = False,
        read: Annotations | None = None,
    ) -> None:
        """Read the annotation file; pictures and masks are decoded when an item is asked for.

        Args:
            images: folder of the pictures, or several, of which the one is taken that holds the first pictures.
            annotations: COCO's instances JSON, or what else the annotations were read from.
            masks: whether targets hold masks.
            read: what was read of it; by default it is read here.

        Raises:
            FileNotFoundError: if there is no such annotation file.
            NoMaskError: a ValueError, if masks are asked for and an object has none.
            ValueError: if it is malformed, lists no image or no category, or an annotation has an unknown category or
                image, a box that is none or, where masks are asked for, a segmentation that is none.
        """
        read = read or Annotations(read_annotations(annotations))
        super().__init__(read, annotations, images, masks)
        every = AnnotatedInstances.read(read.content, annotations, self.records, self.categories, masks=masks)
        self.instances = every
        kept = np.flatnonzero(~every.iscrowd)
        ids = np.array([category.id for category in self.categories], dtype=np.int64)  # ascending
        self.objects = Objects(
            labels=np.searchsorted(ids, every.category_ids[kept]),
            boxes_xywh=every.boxes_xywh[kept],
            starts=np.searchsorted(every.pictures[kept], np.arange(len(self.records) + 1)),
            crowds=len(every.iscrowd) - len(kept),
        )
        self._kept = kept

    def target(self, index: int) -> Target:
        """What is in one picture. Raises ValueError if the run lengths of a mask are broken."""
        record, here = self.records[index], self.objects.of(index)
        boxes = boxes_xywh_to_xyxy(self.objects.boxes_xywh[here])
        layers = self._layers(record, here) if self.masks else None
        return make_target(record, self.objects.labels[here], boxes, layers)

    def _layers(self, record: ImageRecord, here: slice) -> MaskLayers:
        masks = (self._mask(record, index) for index in self._kept[here].tolist())
        return layers_of(masks, (record.height, record.width))

    def _mask(self, record: ImageRecord, index: int) -> NDArray[np.uint8]:
        assert self.instances.segmentations is not None
        try:
            return decode_mask(self.instances.segmentations[index], record)
        except ValueError as error:
            raise self.instances.decoding_failed(self.annotations, index, error) from error
