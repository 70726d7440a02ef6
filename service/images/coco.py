"""What was found in an image, as entries of COCO's results files (cocodataset.org/#format-results)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, RootModel

from model.runtime.answers.detections import Detections
from model.runtime.answers.instances import Instances
from model.runtime.answers.panoptic import PanopticResult
from model.runtime.answers.segment_codec import encode_rles
from model.runtime.artifact.metadata import Metadata
from service.images.responses import BOX_DECIMALS, SCORE_DECIMALS, mask_rle, png_in_base64
from service.schemas import Body, RunLengths, Score

CocoBox = Annotated[
    tuple[float, float, float, float], Field(description="x, y of the top left, width, height, in pixels")
]


class DetectionEntry(Body):
    """An entry of COCO's results for boxes."""

    image_id: int
    category_id: int
    bbox: CocoBox
    score: Score


class InstanceEntry(Body):
    """An entry of COCO's results for masks. It has no box, because pycocotools would take that for its area."""

    image_id: int
    category_id: int
    segmentation: RunLengths
    score: Score


class SegmentEntry(Body):
    """One segment of a panoptic entry."""

    id: int = Field(description="value of its pixels in the PNG")
    category_id: int
    isthing: bool
    score: Score
    area: int = Field(description="pixels")
    bbox: CocoBox


class PanopticResultEntry(Body):
    """An entry of COCO's panoptic results, and the file that it names."""

    image_id: int
    file_name: str
    segments_info: list[SegmentEntry]
    panoptic_png: str = Field(description="base64 of the file: id = R + 256 G + 65536 B, 0 is void")


class DetectionEntries(RootModel[list[DetectionEntry]]):
    """Answer of POST /detect?format=coco, best score first."""


class InstanceEntries(RootModel[list[InstanceEntry]]):
    """Answer of POST /segment?mode=instance&format=coco, best score first."""


def coco_detections(metadata: Metadata, image_id: int, found: Detections) -> DetectionEntries:
    """Detections as COCO's entries."""
    rows = zip(found.scores.tolist(), found.labels.tolist(), found.boxes_xyxy.tolist(), strict=True)
    return DetectionEntries(
        [
            DetectionEntry(
                image_id=image_id,
                category_id=metadata.categories[label].id,
                bbox=_coco_box(*box),
                score=round(score, SCORE_DECIMALS),
            )
            for score, label, box in rows
        ]
    )


def coco_instances(metadata: Metadata, image_id: int, orig_size: tuple[int, int], found: Instances) -> InstanceEntries:
    """Instances as COCO's entries."""
    rows = ((instance.label, instance.score, mask_rle(instance.mask)) for instance in found)
    return _mask_entries(metadata, image_id, orig_size, rows)


def coco_segments(
    metadata: Metadata, image_id: int, orig_size: tuple[int, int], found: PanopticResult
) -> InstanceEntries:
    """Panoptic segments as COCO's entries for masks, which pycocotools reads; the panoptic entry it does not."""
    rles = encode_rles(found.ids, [segment.id for segment in found.segments])
    rows = ((each.label, each.score, rle["counts"]) for each, rle in zip(found.segments, rles, strict=True))
    return _mask_entries(metadata, image_id, orig_size, rows)


def coco_panoptic(metadata: Metadata, image_id: int, found: PanopticResult) -> PanopticResultEntry:
    """A panoptic result as COCO's entry; the file is called as COCO calls its own."""
    segments = [
        SegmentEntry(
            id=segment.id,
            category_id=metadata.categories[segment.label].id,
            isthing=segment.isthing,
            score=round(segment.score, SCORE_DECIMALS),
            area=segment.area,
            bbox=_coco_box(*segment.box_xyxy),
        )
        for segment in found.segments
    ]
    return PanopticResultEntry(
        image_id=image_id,
        file_name=f"{image_id:012d}.png",
        segments_info=segments,
        panoptic_png=png_in_base64(found.ids),
    )


def _mask_entries(
    metadata: Metadata, image_id: int, orig_size: tuple[int, int], rows: Iterable[tuple[int, float, str]]
) -> InstanceEntries:
    """Entries of the class index, score and run lengths of each mask."""
    return InstanceEntries(
        [
            InstanceEntry(
                image_id=image_id,
                category_id=metadata.categories[label].id,
                segmentation=RunLengths(size=orig_size, counts=counts),
                score=round(score, SCORE_DECIMALS),
            )
            for label, score, counts in rows
        ]
    )


def _coco_box(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
    x, y, width, height = (round(value, BOX_DECIMALS) for value in (x1, y1, x2 - x1, y2 - y1))
    return x, y, width, height
