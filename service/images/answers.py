"""From one image's outputs to what is answered: the stages "postprocess" and "encode"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from model.runtime.answers.detections import Detections, detections_of
from model.runtime.answers.instances import Instances, instances_of
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.answers.segment_codec import id_png
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import NoMasksError
from service.images.bodies import image_bytes
from service.images.classes import wanted_classes
from service.images.coco import coco_detections, coco_instances, coco_panoptic, coco_segments
from service.images.pictures import PictureFormat
from service.images.responses import detect_response, instance_response, segment_response
from service.images.task import Content, FormedTask, Prepared, json_content
from service.process.trace import Trace

DetectForm = Literal["json", "coco", "overlay"]
# Of instances there is no PNG of ids, since they may overlap. COCO's own form of panoptic segments is a PNG with a list
# (coco); as masks (coco_masks) they are what it has for instances.
SegmentForm = Literal["json", "coco", "coco_masks", "png", "overlay"]
SegmentMode = Literal["panoptic", "instance"]


@dataclass(frozen=True)
class DetectTask(FormedTask):
    """Boxes as JSON, or drawn on the picture."""

    threshold: float
    form: DetectForm = "json"
    classes: frozenset[int] | None = None  # indices of those that are wanted
    image_id: int = 0  # in COCO's entries
    picture: PictureFormat = "png"  # of what is drawn
    mask_threshold = NO_MASKS
    image_in = staticmethod(image_bytes)

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        threshold: float | None,
        form: DetectForm = "json",
        classes: str | None = None,
        *,
        image_id: int = 0,
        picture: PictureFormat = "png",
    ) -> DetectTask:
        """The task for a model, at the model's own threshold and with all of its classes unless some are given.

        Raises:
            ParameterError: the model has no such class.
        """
        score = metadata.detect_threshold if threshold is None else threshold
        return cls(score, form, wanted_classes(metadata, classes), image_id, picture)

    def find(
        self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace
    ) -> tuple[Detections, Callable[[], Content]]:
        """See there: boxes."""
        with trace.stage("postprocess"):
            logits, boxes = outputs.pred_logits, outputs.pred_boxes
            found = detections_of(logits, boxes, prepared.orig_size, self.threshold, self.classes)
        return found, partial(self._told, metadata, prepared, found)

    def _told(self, metadata: Metadata, prepared: Prepared, found: Detections) -> Content:
        if self.form == "coco":
            return json_content(coco_detections(metadata, self.image_id, found))
        return json_content(detect_response(metadata, prepared.orig_size, found))


@dataclass(frozen=True)
class SegmentTask(FormedTask):
    """Segments as JSON, as the COCO panoptic PNG, or painted over the picture."""

    threshold: float
    form: SegmentForm = "json"
    classes: frozenset[int] | None = None  # indices of those that are wanted
    image_id: int = 0  # in COCO's entries
    picture: PictureFormat = "png"  # of what is drawn
    mode: SegmentMode = "panoptic"
    polygons: bool = False  # whether JSON has outlines
    image_in = staticmethod(image_bytes)

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        threshold: float | None,
        form: SegmentForm = "json",
        classes: str | None = None,
        *,
        image_id: int = 0,
        picture: PictureFormat = "png",
        mode: SegmentMode = "panoptic",
        polygons: bool = False,
    ) -> SegmentTask:
        """The task for a model, at the model's own threshold and with all of its classes unless some are given.

        Raises:
            NoMasksError: the model only detects.
            ParameterError: the model has no such class.
        """
        if metadata.mask_stride is None:
            raise _no_masks(metadata)
        score = metadata.segment_threshold if threshold is None else threshold
        return cls(score, form, wanted_classes(metadata, classes), image_id, picture, mode, polygons)

    @property
    def mask_threshold(self) -> float:
        """See Task."""
        return self.threshold

    def find(
        self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace
    ) -> tuple[PanopticResult | Instances, Callable[[], Content]]:
        """See there: segments or instances. The second raises ParameterError if outlines have too many corners."""
        with trace.stage("postprocess"):
            find = segments_of if self.mode == "panoptic" else found_instances
            found = find(metadata, prepared, outputs, self.threshold, self.classes)
        return found, partial(self._told, metadata, prepared, found)

    def _told(self, metadata: Metadata, prepared: Prepared, found: PanopticResult | Instances) -> Content:
        if isinstance(found, Instances):
            return self._instances(metadata, prepared.orig_size, found)
        if self.form == "png":
            return Content(id_png(found.ids), "image/png")
        if self.form == "coco":
            return json_content(coco_panoptic(metadata, self.image_id, found))
        if self.form == "coco_masks":
            return json_content(coco_segments(metadata, self.image_id, prepared.orig_size, found))
        return json_content(segment_response(metadata, prepared.orig_size, found, self.polygons))

    def _instances(self, metadata: Metadata, orig_size: tuple[int, int], found: Instances) -> Content:
        if self.form in ("coco", "coco_masks"):
            return json_content(coco_instances(metadata, self.image_id, orig_size, found))
        return json_content(instance_response(metadata, orig_size, found, self.polygons))


TaskName = Literal["detect", "segment"]
TASKS: Mapping[TaskName, type[DetectTask] | type[SegmentTask]] = {"detect": DetectTask, "segment": SegmentTask}


def _no_masks(metadata: Metadata) -> NoMasksError:
    return NoMasksError(f"the model {metadata.name} detects objects and has no masks; ask /detect")


def segments_of(
    metadata: Metadata,
    prepared: Prepared,
    outputs: ImageOutputs,
    threshold: float,
    classes: frozenset[int] | None = None,
) -> PanopticResult:
    """The panoptic segmentation of one image, or the segments of some classes in it.

    Raises:
        NoMasksError: the model has no masks.
        OutputError: the outputs are not finite.
    """
    size, stride = _mask_sizes(metadata, prepared, outputs)
    return panoptic(outputs, size, prepared.orig_size, metadata.categories, threshold, stride, classes)


def found_instances(
    metadata: Metadata,
    prepared: Prepared,
    outputs: ImageOutputs,
    threshold: float,
    classes: frozenset[int] | None = None,
) -> Instances:
    """The things in one image, or the instances of some classes. Raises what `segments_of` does."""
    size, stride = _mask_sizes(metadata, prepared, outputs)
    return instances_of(outputs, size, prepared.orig_size, metadata.categories, threshold, stride, classes)


def _mask_sizes(metadata: Metadata, prepared: Prepared, outputs: ImageOutputs) -> tuple[tuple[int, int], int]:
    """(height, width) in pixels of the image as the network saw it, and the pixels per mask cell."""
    if metadata.mask_stride is None or outputs.mask_logits is None or outputs.query_index is None:
        raise _no_masks(metadata)
    height, width = prepared.resized.shape[:2]
    return (height, width), metadata.mask_stride
