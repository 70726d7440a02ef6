"""What a task makes of an image's outputs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.detections import detections_of
from model.runtime.answers.id_map import IdMap
from model.runtime.answers.overlay import draw_detections
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from service.errors import NoMasksError, OutlinesTooLongError
from service.images.answers import DetectTask, SegmentTask
from service.images.responses import Outliner
from service.images.task import Prepared, Task
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


def two_segments() -> ImageOutputs:
    """A red square on the ground, and a query that sees nothing."""
    logits = np.full((3, 6), -2, dtype=np.float32)
    logits[[0, 1, 2], [0, 3, 5]] = [4, 3, 8]
    boxes = np.array([[0.5, 0.5, 0.3, 0.4], [0.5, 0.5, 2, 2], [0, 0, 1, 1]], dtype=np.float32)
    masks = np.full((2, 12, 16), -1, dtype=np.float32)
    masks[0, 3:9, 5:11] = 3
    masks[1] = 1
    return ImageOutputs(logits, boxes, masks, np.array([0, 1]))


def answered(task: Task) -> bytes:
    return task.answer(METADATA, prepared(lambda: PICTURE), two_segments(), Trace()).body


@pytest.mark.parametrize("task", [DetectTask(0.5, "coco"), SegmentTask(0.5)])
def test_what_is_told_and_drawn_at_once_is_what_is_answered_apart(task: DetectTask | SegmentTask) -> None:
    given = METADATA, prepared(lambda: PICTURE), two_segments()
    apart = task.answer(*given, Trace()), replace(task, form="overlay").answer(*given, Trace())
    assert task.told_and_drawn(*given, Trace()) == apart


def test_an_answer_without_further_wishes_is_the_same_to_the_byte() -> None:
    assert answered(DetectTask(0.5)) == (
        b'{"model":"tiny","image":{"width":80,"height":60},"detections":['
        b'{"label":"red","category_id":1,"isthing":true,"score":0.9878,"box":{"x1":28.0,"y1":18.0,"x2":52.0,"y2":42.0}},'
        b'{"label":"ground","category_id":92,"isthing":false,"score":0.9674,'
        b'"box":{"x1":0.0,"y1":0.0,"x2":80.0,"y2":60.0}}]}'
    )
    body = answered(SegmentTask(0.5))
    segments = (
        b'{"model":"tiny","image":{"width":80,"height":60},"segments":[{"id":1,"label":"red","category_id":1,'
        b'"isthing":true,"score":0.9878,"area":896,"box":{"x1":25.0,"y1":15.0,"x2":55.0,"y2":45.0},"rle":{"size":[60,80],'
        b'"counts":"\\\\_1l0o02O000000000000000000000000000000000000000000000000000001N]^1"}},'
    )
    assert body[: len(segments)] == segments
    # Of the PNG it is the pixels: how they are compressed is the library's business.
    text, _, png = body.partition(b'"panoptic_png":"')
    file = base64.b64decode(png.removesuffix(b'"}'))
    assert file == answered(SegmentTask(0.5, "png"))
    with Image.open(io.BytesIO(file)) as ids:
        digests = [hashlib.sha256(found).hexdigest()[:16] for found in (text, np.asarray(ids).tobytes())]
    assert digests == ["3ce70c1c702b0028", "45730123da19df29"]


def test_outlines_stand_beside_run_lengths_and_nothing_else_changes() -> None:
    for task in (SegmentTask(0.5), SegmentTask(0.5, mode="instance")):
        plain, outlined = json.loads(answered(task)), json.loads(answered(replace(task, polygons=True)))
        for segment in outlined["segments"]:
            sides = [side for polygon in segment.pop("polygons") for ring in polygon for side in pairwise(ring)]
            assert sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in sides) == 2 * segment["area"]
        assert outlined == plain


def test_outlines_with_too_many_corners_are_refused_in_one_line() -> None:
    ids = IdMap.of(np.indices((20, 20)).sum(axis=0) % 2)
    outliner = Outliner(1000)
    outliner.around(ids, 1)
    with pytest.raises(OutlinesTooLongError, match="polygons: the outlines have more than 1000 corners; ask for fewer"):
        outliner.around(ids, 1)


def test_instances_are_things_with_the_mask_of_their_own_query() -> None:
    told = json.loads(answered(SegmentTask(0.5, mode="instance")))
    assert told.keys() == {"model", "image", "segments"}
    assert [segment["label"] for segment in told["segments"]] == ["red"]
    every = json.loads(answered(SegmentTask(0.5, classes=frozenset({0, 3}), mode="instance")))
    assert [(segment["id"], segment["label"], segment["area"]) for segment in every["segments"]] == [
        (1, "red", 1062), (2, "ground", 80 * 60),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "media_type"),
    [
        (DetectTask(0.5, "overlay", picture="jpeg"), "image/jpeg"),
        (SegmentTask(0.5, "overlay", picture="webp"), "image/webp"),
        (SegmentTask(0.5, "overlay", picture="jpeg", mode="instance"), "image/jpeg"),
        (SegmentTask(0.5, "overlay", mode="instance"), "image/png"),
    ],
)
def test_a_drawing_comes_in_the_format_that_is_wanted(task: DetectTask | SegmentTask, media_type: str) -> None:
    content = task.answer(METADATA, prepared(lambda: PICTURE), two_segments(), Trace())
    assert content.media_type == media_type
    lossless = answered(replace(task, picture="png"))
    with Image.open(io.BytesIO(content.body)) as drawn, Image.open(io.BytesIO(lossless)) as exact:
        assert f"image/{str(drawn.format).lower()}" == media_type
        difference = np.asarray(drawn.convert("RGB"), np.int16) - np.asarray(exact, np.int16)
    assert np.abs(difference).mean() < 8
    assert (np.asarray(exact) != PICTURE).any()
