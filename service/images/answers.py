"""From one image's outputs to what is answered: the stages "postprocess" and "encode"."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from model.runtime.allocations import turn_into_memory_errors
from model.runtime.answers.detections import Detections, detections_of
from model.runtime.answers.overlay import draw_detections, draw_panoptic
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.answers.segment_codec import encode_rles, id_png
from model.runtime.artifact.metadata import Metadata
from model.runtime.categories import classes_meant_by
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import NoMasksError, ParameterError
from service.images.bodies import image_bytes
from service.process.trace import Trace
from service.schemas import (
    Box,
    Detection,
    DetectResponse,
    ImageSize,
    RunLengths,
    SegmentInfo,
    SegmentResponse,
)

# Past these digits an answer would only tell of the order in which floats were added.
_BOX_DECIMALS = 2
_SCORE_DECIMALS = 4


@dataclass(frozen=True)
class Prepared:
    """An image on its way through the network."""

    orig_size: tuple[int, int]  # (height, width) in pixels, as displayed
    resized: NDArray[np.uint8]  # [h, w, 3], RGB, as the network takes it
    # Decodes the whole image, RGB [height, width, 3], once more; only where the answer is drawn on it. Kept, it would
    # take up to 150 MB while it waits for the engine.
    decode_again: Callable[[], NDArray[np.uint8]] | None


@dataclass(frozen=True)
class Content:
    """A finished answer."""

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """What one request wants of its image."""

    def image_in(self, body: bytes | bytearray, content_type: str) -> bytes | bytearray:
        """The bytes of the image in a request's body, of which the task may learn what is wanted.

        Raises:
            ServiceError: there is none, or what is wanted cannot be done.
        """

    @property
    def draws(self) -> bool:
        """Whether the answer is drawn on the image, which is then decoded again."""

    @property
    def is_json(self) -> bool:
        """Whether the answer is JSON, so that several can stand in one answer."""

    @property
    def mask_threshold(self) -> float:
        """What the graph is told, once the image is there; see its input of that name."""

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """Make the answer. Raises OutputError if the outputs are not finite."""


DetectForm = Literal["json", "overlay"]
SegmentForm = Literal["json", "png", "overlay"]


class _Formed:
    """What the form of an answer says of it, see Task."""

    form: str

    @property
    def draws(self) -> bool:
        return self.form == "overlay"

    @property
    def is_json(self) -> bool:
        return self.form not in ("overlay", "png")


@dataclass(frozen=True)
class DetectTask(_Formed):
    """Boxes as JSON, or drawn on the picture."""

    threshold: float
    form: DetectForm = "json"
    classes: frozenset[int] | None = None  # indices of those that are wanted
    mask_threshold = NO_MASKS
    image_in = staticmethod(image_bytes)

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        threshold: float | None,
        form: DetectForm = "json",
        classes: str | None = None,
    ) -> DetectTask:
        """The task for a model, at the model's own threshold and with all of its classes unless some are given.

        Raises:
            ParameterError: the model has no such class.
        """
        return cls(metadata.detect_threshold if threshold is None else threshold, form, _wanted(metadata, classes))

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """See Task."""
        with trace.stage("postprocess"):
            logits, boxes = outputs.pred_logits, outputs.pred_boxes
            found = detections_of(logits, boxes, prepared.orig_size, self.threshold, self.classes)
        if self.form == "overlay":
            return _drawn(prepared, lambda image: draw_detections(image, found, metadata.categories), trace)
        with trace.stage("encode"):
            return _json(detect_response(metadata, prepared.orig_size, found))


@dataclass(frozen=True)
class SegmentTask(_Formed):
    """Segments as JSON, as the COCO panoptic PNG, or painted over the picture."""

    threshold: float
    form: SegmentForm = "json"
    classes: frozenset[int] | None = None  # indices of those that are wanted
    image_in = staticmethod(image_bytes)

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        threshold: float | None,
        form: SegmentForm = "json",
        classes: str | None = None,
    ) -> SegmentTask:
        """The task for a model, at the model's own threshold and with all of its classes unless some are given.

        Raises:
            NoMasksError: the model only detects.
            ParameterError: the model has no such class.
        """
        if metadata.mask_stride is None:
            raise _no_masks(metadata)
        return cls(metadata.segment_threshold if threshold is None else threshold, form, _wanted(metadata, classes))

    @property
    def mask_threshold(self) -> float:
        """See Task."""
        return self.threshold

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Content:
        """See Task."""
        with trace.stage("postprocess"):
            found = segments_of(metadata, prepared, outputs, self.threshold, self.classes)
        if self.form == "overlay":
            return _drawn(prepared, lambda image: draw_panoptic(image, found, metadata.categories), trace)
        with trace.stage("encode"):
            if self.form == "png":
                return Content(id_png(found.ids), "image/png")
            return _json(segment_response(metadata, prepared.orig_size, found))


TaskName = Literal["detect", "segment"]
TASKS: Mapping[TaskName, type[DetectTask] | type[SegmentTask]] = {"detect": DetectTask, "segment": SegmentTask}


def _drawn(prepared: Prepared, draw: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], trace: Trace) -> Content:
    """The whole image, decoded once more, with the answer on it."""
    assert prepared.decode_again is not None, "it was not prepared to be drawn on"
    with trace.stage("decode"):
        image = prepared.decode_again()
    with trace.stage("encode"), turn_into_memory_errors():
        return Content(png(draw(image)), "image/png")


def _json(response: BaseModel) -> Content:
    return Content(response.model_dump_json().encode(), "application/json")


def _no_masks(metadata: Metadata) -> NoMasksError:
    return NoMasksError(f"the model {metadata.name} detects objects and has no masks; ask /detect")


def _wanted(metadata: Metadata, classes: str | None) -> frozenset[int] | None:
    if classes is None:
        return None
    try:
        return classes_meant_by(metadata.categories, classes)
    except ValueError as error:
        names = [category.name for category in metadata.categories]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ParameterError(f"{error}; it knows {', '.join(names[:10])}{more}") from None


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
    if metadata.mask_stride is None or outputs.mask_logits is None or outputs.query_index is None:
        raise _no_masks(metadata)
    height, width = prepared.resized.shape[:2]
    size, stride = (height, width), metadata.mask_stride
    return panoptic(outputs, size, prepared.orig_size, metadata.categories, threshold, stride, classes)


def detect_response(metadata: Metadata, orig_size: tuple[int, int], found: Detections) -> DetectResponse:
    """Detections in the words of the HTTP contract."""
    rows = zip(found.scores.tolist(), found.labels.tolist(), found.boxes_xyxy.tolist(), strict=True)
    detections = [
        Detection(
            label=metadata.categories[label].name,
            category_id=metadata.categories[label].id,
            score=round(score, _SCORE_DECIMALS),
            box=_box(*box),
        )
        for score, label, box in rows
    ]
    return DetectResponse(model=metadata.name, image=_image_size(orig_size), detections=detections)


def segment_response(metadata: Metadata, orig_size: tuple[int, int], found: PanopticResult) -> SegmentResponse:
    """Segments in the words of the HTTP contract."""
    rles = encode_rles(found.ids, [segment.id for segment in found.segments])
    segments = [
        SegmentInfo(
            id=segment.id,
            label=metadata.categories[segment.label].name,
            category_id=metadata.categories[segment.label].id,
            isthing=segment.isthing,
            score=round(segment.score, _SCORE_DECIMALS),
            area=segment.area,
            box=_box(*segment.box_xyxy),
            rle=RunLengths(size=orig_size, counts=rle["counts"]),
        )
        for segment, rle in zip(found.segments, rles, strict=True)
    ]
    return SegmentResponse(
        model=metadata.name,
        image=_image_size(orig_size),
        segments=segments,
        panoptic_png=base64.b64encode(id_png(found.ids)).decode("ascii"),
    )


def png(image: NDArray[np.uint8]) -> bytes:
    """An RGB image [height, width, 3] as a PNG, fast rather than small."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(
        x1=round(x1, _BOX_DECIMALS),
        y1=round(y1, _BOX_DECIMALS),
        x2=round(x2, _BOX_DECIMALS),
        y2=round(y2, _BOX_DECIMALS),
    )


def _image_size(orig_size: tuple[int, int]) -> ImageSize:
    height, width = orig_size
    return ImageSize(width=width, height=height)
