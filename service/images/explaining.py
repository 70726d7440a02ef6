"""Where the network looked: the task of /explain."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from model.runtime.answers.attention import Explanation, cell_at, cell_size, cross_attention, self_attention
from model.runtime.answers.detections import EVERY_QUERY, Detections, queries_and_detections
from model.runtime.artifact.metadata import Metadata
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import NoAttentionError, ParameterError
from service.images.bodies import image_bytes
from service.images.classes import wanted_classes
from service.images.explanations import explain_response
from service.images.pictures import PictureFormat
from service.images.task import Content, FormedTask, Prepared, json_content
from service.process.trace import Trace

ExplainForm = Literal["json", "overlay"]
Point = tuple[float, float]  # x and y, in pixels of the image as displayed

MOST_POINTS = 20
_POINT = re.compile(r" ?(\d{1,6}(?:\.\d{1,6})?) ?, ?(\d{1,6}(?:\.\d{1,6})?) ?")


@dataclass(frozen=True)
class ExplainTask(FormedTask):
    """Maps of what each object's query, and each asked point, looked at: as JSON, or painted over the picture."""

    threshold: float
    form: ExplainForm = "json"
    classes: frozenset[int] | None = None  # indices of those that are wanted
    query: int | None = None  # the only object query that is wanted, whatever its score
    points: tuple[Point, ...] = ()
    picture: PictureFormat = "png"  # of what is drawn
    mask_threshold = NO_MASKS
    attention = True
    image_in = staticmethod(image_bytes)

    @classmethod
    def of(
        cls,
        metadata: Metadata,
        threshold: float | None,
        form: ExplainForm = "json",
        classes: str | None = None,
        *,
        query: int | None = None,
        points: Sequence[Point] = (),
        picture: PictureFormat = "png",
    ) -> ExplainTask:
        """The task for a model, at the model's own threshold and with all of its classes unless some are given.

        Raises:
            NoAttentionError: the model's file does not give its attention.
            ParameterError: the model has no such class or query.
        """
        if metadata.attention is None:
            raise NoAttentionError(
                f"the model {metadata.name} was exported without its attention; export it with "
                "`detr export --attention`"
            )
        if query is not None and query >= metadata.num_queries:
            raise ParameterError(f"query: the model has the object queries 0 to {metadata.num_queries - 1}")
        score = metadata.detect_threshold if threshold is None else threshold
        return cls(score, form, wanted_classes(metadata, classes), query, tuple(points), picture)

    def find(
        self, metadata: Metadata, prepared: Prepared, outputs: ImageOutputs, trace: Trace
    ) -> tuple[Explanation, Callable[[], Content]]:
        """See there: objects, and maps of them and of points. Raises ParameterError for a point beside the picture."""
        with trace.stage("postprocess"):
            shape, attention = metadata.attention, outputs.attention
            assert shape is not None
            assert attention is not None, "it was not asked for"
            orig_size, size = prepared.orig_size, prepared.resized.shape[:2]
            for x, y in self.points:
                if x > orig_size[1] or y > orig_size[0]:
                    raise ParameterError(
                        f"points: {x:g},{y:g} is beside the picture, which is {orig_size[1]} x {orig_size[0]} pixels"
                    )
            queries, found = self._objects(prepared, outputs)
            cells = [cell_at(x, y, orig_size, size, shape) for x, y in self.points]
            explanation = Explanation(
                found,
                queries,
                cross_attention(attention, queries.tolist(), size, shape),
                self.points,
                self_attention(attention, cells, size, shape),
                cell_size(orig_size, size, shape),
            )
        return explanation, partial(self._told, metadata, orig_size, explanation)

    def _objects(
        self, prepared: Prepared, outputs: ImageOutputs
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], Detections]:
        threshold = self.threshold if self.query is None else EVERY_QUERY
        logits, boxes = outputs.pred_logits, outputs.pred_boxes
        queries, found = queries_and_detections(logits, boxes, prepared.orig_size, threshold, self.classes)
        if self.query is None:
            return queries, found
        only = queries == self.query
        return queries[only], Detections(found.scores[only], found.labels[only], found.boxes_xyxy[only])

    def _told(self, metadata: Metadata, orig_size: tuple[int, int], explanation: Explanation) -> Content:
        return json_content(explain_response(metadata, orig_size, explanation))


def points_of(text: str) -> list[Point]:
    """The points of `120,80;300,45.5`. Raises ParameterError for anything else, and for too many."""
    found = [_POINT.fullmatch(part) for part in text.split(";")] if text.strip() else []
    if len(found) > MOST_POINTS or not all(found):
        raise ParameterError(f"points: give x,y of up to {MOST_POINTS} points in pixels, such as 120,80;300,45.5")
    return [(float(match[1]), float(match[2])) for match in found if match]
