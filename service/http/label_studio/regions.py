"""What was found in a picture, as regions of Label Studio: rectangles, brush strokes, and polygons.

https://labelstud.io/guide/predictions: each region names the control and the picture that it belongs to.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.detections import detections_of
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.outlines import Ring
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import LabellingError
from service.http.label_studio.brush import brush_rle
from service.http.label_studio.labelling import Control, match
from service.images.answers import found_instances
from service.images.responses import SCORE_DECIMALS, Outliner
from service.images.several_images import ImagePart
from service.images.task import Content, Prepared
from service.process.trace import Trace

_DECIMALS = 4  # of percent: a hundredth of a pixel of a photograph
_MOST_CORNERS = 50_000  # of all outlines in a picture, before they are simplified


@dataclass(frozen=True)
class Regions(Content):
    """Regions in JSON with commas between them, and the score of each."""

    scores: Sequence[float] = ()


class LabelTask:
    """A Task that answers with regions of some controls."""

    draws = False
    attention = False
    is_json = True

    def __init__(self, metadata: Metadata, controls: Sequence[Control], picture: ImagePart | None = None) -> None:
        """The task for a model; `picture` gives the bytes of a picture that is not the body.

        Raises:
            LabellingError: the model knows none of the labels, or has no masks for those that it knows.
        """
        self._picture = picture
        self._asked = [
            (control, matching.label_of, _threshold(control, metadata))
            for control in controls
            if (control.shape == "rectanglelabels" or metadata.mask_stride is not None)
            and (matching := match(control, metadata.categories)).label_of
        ]
        if not self._asked:
            raise LabellingError(_none_known(metadata, controls))
        masked = [threshold for control, _, threshold in self._asked if control.shape != "rectanglelabels"]
        self.mask_threshold = min(masked, default=NO_MASKS)

    def image_in(self, body: bytes | bytearray, content_type: str) -> bytes | bytearray:
        """See Task."""
        return body if self._picture is None else self._picture()

    def answer(self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace) -> Regions:
        """See Task. Raises ParameterError if the outlines have too many corners."""
        outliner = Outliner(_MOST_CORNERS)
        regions, scores = [], []
        for control, label_of, threshold in self._asked:
            if control.shape == "rectanglelabels":
                found = _rectangles(prepared, outputs, threshold, frozenset(label_of), trace)
            else:
                found = _masks(
                    metadata, prepared, outputs, threshold, frozenset(label_of), control.shape, outliner, trace
                )
            for index, score, value in found:
                with trace.stage("encode"):
                    regions.append(_region(control, label_of[index], score, value, prepared.orig_size))
                scores.append(score)
        return Regions(b",".join(regions), "application/json", scores=scores)


def _threshold(control: Control, metadata: Metadata) -> float:
    """The score above which shapes of a control are answered: its own, or the model's."""
    if control.threshold is not None:
        return control.threshold
    return metadata.detect_threshold if control.shape == "rectanglelabels" else metadata.segment_threshold


_Found = Iterator[tuple[int, float, dict[str, Any]]]  # class index, score, value


def _rectangles(
    prepared: Prepared, outputs: ImageOutputs, threshold: float, classes: frozenset[int], trace: Trace
) -> _Found:
    with trace.stage("postprocess"):
        found = detections_of(outputs.pred_logits, outputs.pred_boxes, prepared.orig_size, threshold, classes)
    height, width = prepared.orig_size
    percent = found.boxes_xyxy.astype(float) * (100 / np.array([width, height, width, height]))
    for index, score, (x1, y1, x2, y2) in zip(
        found.labels.tolist(), found.scores.tolist(), percent.tolist(), strict=True
    ):
        sides = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1}
        yield index, score, {side: round(value, _DECIMALS) for side, value in sides.items()} | {"rotation": 0}


def _masks(
    metadata: Metadata,
    prepared: Prepared,
    outputs: ImageOutputs,
    threshold: float,
    classes: frozenset[int],
    shape: str,
    outliner: Outliner,
    trace: Trace,
) -> _Found:
    with trace.stage("postprocess"):
        found = iter(found_instances(metadata, prepared, outputs, threshold, classes))
    while True:
        with trace.stage("postprocess"):
            instance = next(found, None)
        if instance is None:
            return
        with trace.stage("encode"):
            if shape == "brushlabels":
                values: list[dict[str, Any]] = [{"format": "rle", "rle": brush_rle(instance.mask.array() > 0)}]
            else:
                values = list(_polygons(instance.mask, outliner))
        for value in values:
            yield instance.label, instance.score, value


def _polygons(mask: IdMap, outliner: Outliner) -> Iterator[dict[str, Any]]:
    """The outer outlines of a mask: without the holes, which polygons in Label Studio cannot have, and without the
    steps of pixels, since people are to correct them.
    """
    height, width = mask.shape
    step = max(height / len(mask.row_copies), width / len(mask.column_copies), 1.0)  # pixels of the network's own mask
    for outer, *_ in outliner.around(mask, 1):
        corners = simplified(outer, step) * (100 / np.array([width, height]))
        if len(corners) >= 3:
            yield {"points": np.round(corners, _DECIMALS).tolist(), "closed": True}


def simplified(ring: Ring, tolerance: float) -> NDArray[np.float64]:
    """The corners of a ring, [n, 2], without those that the others pass within a tolerance in pixels (Douglas and
    Peucker's choice); the first does not come again at the end.
    """
    points = np.array(ring, dtype=np.float64)
    farthest = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    kept = {0, farthest}
    parts = [(0, farthest), (farthest, len(points) - 1)]
    while parts:
        begin, end = parts.pop()
        if end - begin < 2:
            continue
        distances = _distances(points[begin + 1 : end], points[begin], points[end])
        middle = int(np.argmax(distances))
        if distances[middle] > tolerance:
            middle += begin + 1
            kept.add(middle)
            parts += [(begin, middle), (middle, end)]
    return points[sorted(kept)]


def _distances(
    points: NDArray[np.float64], one: NDArray[np.float64], other: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far points [n, 2] are from the straight line between two, [n]; from the point, where the two are one."""
    along = other - one
    length = float(np.hypot(*along))
    away = points - one
    across = along[0] * away[:, 1] - along[1] * away[:, 0]
    distances: NDArray[np.float64] = np.hypot(*away.T) if length == 0 else np.abs(across) / length
    return distances


def _region(control: Control, label: str, score: float, value: dict[str, Any], orig_size: tuple[int, int]) -> bytes:
    height, width = orig_size
    region = {
        "id": secrets.token_hex(5),
        "from_name": control.name,
        "to_name": control.picture,
        "type": control.shape,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**value, control.shape: [label]},
        "score": round(score, SCORE_DECIMALS),
    }
    return json.dumps(region, allow_nan=False, separators=(",", ":")).encode()


def _none_known(metadata: Metadata, controls: Sequence[Control]) -> str:
    if any(match(control, metadata.categories).label_of for control in controls):
        return f"the model {metadata.name} has no masks for the labels of this project; give it RectangleLabels"
    names = [category.name for category in metadata.categories]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (
        f"the model {metadata.name} knows none of the labels of this project; it knows {', '.join(names[:10])}{more}, "
        "which a label can name as its predicted_values"
    )
