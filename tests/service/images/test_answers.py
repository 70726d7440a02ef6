"""What a task makes of an image's outputs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.detections import detections_of
from model.runtime.answers.overlay import draw_detections
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import NoMasksError
from service.images.answers import DetectTask, Prepared, SegmentTask
from service.process.trace import Trace
from tests.tiny_artifact import tiny_metadata

METADATA = tiny_metadata()
PICTURE: NDArray[np.uint8] = np.full((60, 80, 3), 90, dtype=np.uint8)


def outputs() -> ImageOutputs:
    """Two queries, of which the first sees something."""
    logits = np.array([[8, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 8]], dtype=np.float32)
    boxes = np.full((2, 4), 0.5, dtype=np.float32)
    return ImageOutputs(logits, boxes, None, None)


def prepared(decode_again: Callable[[], NDArray[np.uint8]] | None = None) -> Prepared:
    return Prepared((60, 80), np.zeros((48, 64, 3), np.uint8), decode_again)


def test_detections_are_drawn_on_the_whole_picture() -> None:
    task = DetectTask(0.5, "overlay")
    trace = Trace()
    assert task.draws
    content = task.answer(METADATA, prepared(lambda: PICTURE), outputs(), trace)
    found = detections_of(outputs().pred_logits, outputs().pred_boxes, (60, 80), 0.5)
    assert content.media_type == "image/png"
    with Image.open(io.BytesIO(content.body)) as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), draw_detections(PICTURE, found, METADATA.categories))
    assert trace.stages.keys() == {"postprocess", "decode", "encode"}


def test_detections_are_json_unless_a_drawing_is_asked_for() -> None:
    task = DetectTask(0.5)
    assert not task.draws
    assert task.mask_threshold == NO_MASKS
    assert task.answer(METADATA, prepared(lambda: PICTURE), outputs(), Trace()).media_type == "application/json"


@pytest.mark.parametrize("kind", [DetectTask, SegmentTask])
def test_a_task_takes_the_models_own_threshold_unless_one_is_given(kind: type[DetectTask] | type[SegmentTask]) -> None:
    own = METADATA.detect_threshold if kind is DetectTask else METADATA.segment_threshold
    assert kind.of(METADATA, None) == kind(own)
    assert kind.of(METADATA, 0.0, "overlay") == kind(0.0, "overlay")


def test_a_model_that_only_detects_has_no_segments_to_give() -> None:
    with pytest.raises(NoMasksError, match="the model tiny detects objects and has no masks; ask /detect"):
        SegmentTask.of(replace(METADATA, mask_stride=None, task="detection"), None)
