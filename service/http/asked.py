"""What a request with a picture asks for, by its query and its header Accept, as the task of any model.

A picture wins over JSON, and a format that is named over one that is preferred.
"""

from __future__ import annotations

from collections.abc import Callable

from model.runtime.artifact.metadata import Metadata
from service.http.accept import preferred_picture, prefers_png
from service.images.answers import DetectForm, DetectTask, SegmentForm, SegmentTask
from service.images.explaining import ExplainForm, ExplainTask, points_of
from service.images.task import Task
from service.schemas import DetectParameters, ExplainParameters, SegmentParameters


def detect_task(query: DetectParameters, accept: str) -> Callable[[Metadata], Task]:
    """What makes the task of a model, and raises what `DetectTask.of` does."""
    form: DetectForm = "overlay" if query.overlay else query.format

    def make(metadata: Metadata) -> Task:
        return DetectTask.of(
            metadata,
            query.threshold,
            form,
            query.classes,
            image_id=query.image_id,
            picture=preferred_picture(accept),
        )

    return make


def segment_task(query: SegmentParameters, accept: str) -> Callable[[Metadata], Task]:
    """What makes the task of a model, and raises what `SegmentTask.of` does."""
    form: SegmentForm = "overlay" if query.overlay else query.format
    # Of instances there is no PNG of ids, because a pixel may have several.
    if form == "json" and query.mode == "panoptic" and prefers_png(accept):
        form = "png"

    def make(metadata: Metadata) -> Task:
        return SegmentTask.of(
            metadata,
            query.threshold,
            form,
            query.classes,
            image_id=query.image_id,
            picture=preferred_picture(accept),
            mode=query.mode,
            polygons=query.polygons,
        )

    return make


def explain_task(query: ExplainParameters, accept: str) -> Callable[[Metadata], Task]:
    """What makes the task of a model, and raises what `ExplainTask.of` does. Raises ParameterError for bad points."""
    form: ExplainForm = "overlay" if query.overlay else "json"
    points = points_of(query.points or "")

    def make(metadata: Metadata) -> Task:
        return ExplainTask.of(
            metadata,
            query.threshold,
            form,
            query.classes,
            query=query.query,
            points=points,
            picture=preferred_picture(accept),
        )

    return make
