"""What was found in an image, in the words of the HTTP contract."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from model.runtime.answers.detections import Detections
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.instances import Instances
from model.runtime.answers.outlines import MAX_CORNERS, Polygon, TooManyCornersError, outlines
from model.runtime.answers.panoptic import PanopticResult, Segment
from model.runtime.answers.segment_codec import encode_rles, id_png
from model.runtime.artifact.metadata import Metadata
from service.errors import OutlinesTooLongError
from service.schemas import (
    Box,
    Detection,
    DetectResponse,
    ImageSize,
    InstanceResponse,
    RunLengths,
    SegmentInfo,
    SegmentResponse,
)

# Past these digits an answer would only tell of the order in which floats were added.
BOX_DECIMALS = 2
SCORE_DECIMALS = 4


def detect_response(metadata: Metadata, orig_size: tuple[int, int], found: Detections) -> DetectResponse:
    """Detections as /detect answers them."""
    detections = [Detection(**fields) for fields in detected_fields(metadata, found)]
    return DetectResponse(model=metadata.name, image=image_size(orig_size), detections=detections)


def detected_fields(metadata: Metadata, found: Detections) -> list[dict[str, Any]]:
    """What a `Detection` says of each, by its fields' names."""
    rows = zip(found.scores.tolist(), found.labels.tolist(), found.boxes_xyxy.tolist(), strict=True)
    return [
        {
            "label": metadata.categories[label].name,
            "category_id": metadata.categories[label].id,
            "isthing": metadata.categories[label].isthing,
            "score": round(score, SCORE_DECIMALS),
            "box": _box(*box),
        }
        for score, label, box in rows
    ]


def segment_response(
    metadata: Metadata, orig_size: tuple[int, int], found: PanopticResult, polygons: bool = False
) -> SegmentResponse:
    """Panoptic segments as /segment answers them.

    Raises:
        OutlinesTooLongError: the outlines that were asked for have too many corners.
    """
    rles = encode_rles(found.ids, [segment.id for segment in found.segments])
    outliner = Outliner()
    segments = []
    for segment, rle in zip(found.segments, rles, strict=True):
        outline = outliner.around(found.ids, segment.id) if polygons else None
        segments.append(_segment_info(metadata, orig_size, segment, rle["counts"], outline))
    return SegmentResponse(
        model=metadata.name,
        image=image_size(orig_size),
        segments=segments,
        panoptic_png=png_in_base64(found.ids),
    )


def instance_response(
    metadata: Metadata, orig_size: tuple[int, int], found: Instances, polygons: bool = False
) -> InstanceResponse:
    """Instances as /segment answers them. Raises what `segment_response` does."""
    outliner = Outliner()
    segments = []
    for segment, mask in _numbered(metadata, found):
        outline = outliner.around(mask, 1) if polygons else None
        segments.append(_segment_info(metadata, orig_size, segment, mask_rle(mask), outline))
    return InstanceResponse(model=metadata.name, image=image_size(orig_size), segments=segments)


class Outliner:
    """Makes the outlines of one answer, which have so many corners together and no more."""

    def __init__(self, max_corners: int = MAX_CORNERS) -> None:
        self._max_corners = self._left = max_corners

    def around(self, ids: IdMap, number: int) -> list[Polygon]:
        """The polygons around a segment. Raises OutlinesTooLongError if there are too many corners by now."""
        try:
            polygons, corners = outlines(ids, number, self._left)
        except TooManyCornersError:
            raise OutlinesTooLongError(
                f"polygons: the outlines have more than {self._max_corners} corners; ask for fewer classes, a higher "
                "threshold, or the run lengths alone"
            ) from None
        self._left -= corners
        return polygons


def mask_rle(mask: IdMap) -> str:
    """The compressed run lengths of a mask whose own pixels are 1."""
    return encode_rles(mask, [1])[0]["counts"]


def png_in_base64(ids: IdMap) -> str:
    """The COCO panoptic PNG, as JSON takes it."""
    return base64.b64encode(id_png(ids)).decode("ascii")


def _numbered(metadata: Metadata, found: Instances) -> Iterator[tuple[Segment, IdMap]]:
    for number, instance in enumerate(found, start=1):
        isthing = metadata.categories[instance.label].isthing
        segment = Segment(number, instance.label, isthing, instance.score, instance.area, instance.box_xyxy)
        yield segment, instance.mask


def _segment_info(
    metadata: Metadata, orig_size: tuple[int, int], segment: Segment, counts: str, polygons: list[Polygon] | None
) -> SegmentInfo:
    return SegmentInfo(
        id=segment.id,
        label=metadata.categories[segment.label].name,
        category_id=metadata.categories[segment.label].id,
        isthing=segment.isthing,
        score=round(segment.score, SCORE_DECIMALS),
        area=segment.area,
        box=_box(*segment.box_xyxy),
        rle=RunLengths(size=orig_size, counts=counts),
        polygons=polygons,
    )


def _box(x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(
        x1=round(x1, BOX_DECIMALS),
        y1=round(y1, BOX_DECIMALS),
        x2=round(x2, BOX_DECIMALS),
        y2=round(y2, BOX_DECIMALS),
    )


def image_size(orig_size: tuple[int, int]) -> ImageSize:
    """(height, width) in pixels, as answers say it."""
    height, width = orig_size
    return ImageSize(width=width, height=height)
