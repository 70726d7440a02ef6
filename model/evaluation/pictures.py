"""Pictures for the report: what is annotated beside what was found."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.data.formats.coco_files import ImageRecord, class_indices
from model.data.formats.picture_files import read_pixels
from model.evaluation.evaluator import Evaluator
from model.evaluation.panoptic_quality import MatchCounts, PanopticMap
from model.runtime.answers.detections import Detections
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.overlay import draw_detections, draw_panoptic
from model.runtime.answers.panoptic import PanopticResult, Segment
from model.runtime.artifact.metadata import Metadata
from model.runtime.categories import Category
from model.runtime.engines.engine import Engine
from model.runtime.preprocess import make_batch, resize

LONGEST_EDGE = 800  # pixels of a drawing on the page
READABLE_EDGE = 480  # smaller pictures are enlarged before labels are drawn over them
_JPEG_QUALITY = 85


class ShownPicture(NamedTuple):
    """A picture on the page."""

    record: ImageRecord
    counts: MatchCounts
    annotated: str  # data URL of a JPEG
    found: str


def draw_pair(
    index: int, counts: MatchCounts, engine: Engine, metadata: Metadata, evaluator: Evaluator
) -> ShownPicture:
    """Draw one picture twice. The network answers it again, as answers are not kept; raises what reading it does."""
    record = evaluator.data.records[index]
    picture = read_pixels(evaluator.data.images, record)
    draw = _draw_segments if evaluator.with_segments else _draw_boxes
    annotated, found = draw(picture, index, engine, metadata, evaluator)
    return ShownPicture(record, counts, _data_url(annotated), _data_url(found))


def _draw_segments(
    picture: NDArray[np.uint8], index: int, engine: Engine, metadata: Metadata, evaluator: Evaluator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    assert evaluator.segments is not None
    truth = annotated_result(evaluator.segments.of(index), evaluator.data.categories)
    batch = make_batch([resize(picture, metadata.resize)])
    output = engine.infer(batch, np.array([evaluator.mask_threshold], np.float32)).image(0)
    found = evaluator.panoptic(index, batch.sizes[0], output)
    factor = _enlargement(picture)
    canvas = _enlarged(picture, factor)
    return (
        draw_panoptic(canvas, _enlarged_result(truth, factor), evaluator.data.categories),
        draw_panoptic(canvas, _enlarged_result(found, factor), evaluator.categories),
    )


def _draw_boxes(
    picture: NDArray[np.uint8], index: int, engine: Engine, metadata: Metadata, evaluator: Evaluator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    known = {category.id for category in evaluator.data.categories}
    entries = evaluator.things.of_picture(evaluator.data.records[index].id)
    entries = [entry for entry in entries if not entry["iscrowd"] and entry["category_id"] in known]
    truth = np.array([[*entry["bbox"], 1.0, entry["category_id"]] for entry in entries], np.float64).reshape(-1, 6)
    found = evaluator.answers[index].boxes
    # What the data do not annotate, such as stuff among things, is not judged and would hide what is.
    found = found[(found[:, 4] > metadata.detect_threshold) & np.isin(found[:, 5], list(known))]
    found = found[np.argsort(-found[:, 4], kind="stable")]
    factor = _enlargement(picture)
    canvas = _enlarged(picture, factor)
    return (
        draw_detections(canvas, _detections(truth, evaluator.data.categories, factor), evaluator.data.categories),
        draw_detections(canvas, _detections(found, evaluator.categories, factor), evaluator.categories),
    )


def _enlargement(picture: NDArray[np.uint8]) -> int:
    return max(1, READABLE_EDGE // max(picture.shape[:2]))


def _enlarged(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """RGB uint8 [H, W, 3] to [factor H, factor W, 3]."""
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(picture).resize((factor * width, factor * height), Image.Resampling.BICUBIC))


def _enlarged_result(result: PanopticResult, factor: int) -> PanopticResult:
    """The same segments on a larger map; their areas and boxes, which are not drawn, stay."""
    ids = result.ids
    return PanopticResult(IdMap(ids.ids, factor * ids.row_copies, factor * ids.column_copies), result.segments)


def _detections(rows: NDArray[np.float64], categories: Sequence[Category], factor: int) -> Detections:
    """Rows of `PictureAnswer.boxes`, on a picture that was enlarged."""
    labels = class_indices(categories)
    return Detections(
        rows[:, 4].astype(np.float32),
        np.array([labels[int(i)] for i in rows[:, 5]], dtype=np.int64),
        (factor * np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)).astype(np.float32),
    )


def annotated_result(truth: PanopticMap, categories: Sequence[Category]) -> PanopticResult:
    """An annotation as if it had been found, each segment with a score of 1; crowds are segments like any other."""
    labels = class_indices(categories)
    present = [i for i in truth.category_of if (truth.id_map == i).any()]
    id_map = np.zeros(truth.id_map.shape, dtype=np.int32)
    segments = []
    for number, segment_id in enumerate(present, start=1):
        mask = truth.id_map == segment_id
        id_map[mask] = number
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        label = labels[truth.category_of[segment_id]]
        segments.append(Segment(number, label, categories[label].isthing, 1.0, int(mask.sum()), box))
    return PanopticResult(IdMap.of(id_map), tuple(segments))


def _data_url(drawing: NDArray[np.uint8]) -> str:
    """A JPEG, inside the page, so that the page is one file."""
    image = Image.fromarray(drawing)
    image.thumbnail((LONGEST_EDGE, LONGEST_EDGE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
