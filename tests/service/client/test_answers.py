"""Answers as Python has them, and as other packages read them."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from detr_client import Client, Found, LocalModel
from detr_client.drawing import draw_masks

supervision = pytest.importorskip("supervision")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools


def test_detections_are_read_only_arrays(client: Client, example: Path) -> None:
    answer = client.detect(example)
    body = answer.to_json()
    assert (answer.width, answer.height, answer.model) == (640, 480, "detr-demo")
    assert answer.boxes_xyxy.shape == (len(answer), 4)
    assert answer.labels == tuple(found["label"] for found in body["detections"])
    assert answer.scores.tolist() == [found["score"] for found in body["detections"]]
    assert answer.category_ids.dtype == np.int64
    first = next(iter(answer))
    assert isinstance(first, Found)
    assert (first.label, first.box_xyxy) == (answer.labels[0], tuple(answer.boxes_xyxy[0]))
    assert {found.label: found.isthing for found in answer}.items() >= {"heart": True, "sky": False}.items()
    with pytest.raises(ValueError, match="read-only"):
        answer.scores[0] = 1
    with pytest.raises(AttributeError, match="frozen"):
        answer.labels = ()
    assert pickle.loads(pickle.dumps(answer)) == answer  # noqa: S301
    assert repr(answer).startswith("<DetectAnswer of 640 x 480 pixels: ")


def test_masks_fit_areas_boxes_and_the_id_map(client: Client, example: Path) -> None:
    answer = client.segment(example)
    assert answer.masks.shape == (len(answer), 480, 640)
    assert answer.masks.sum(axis=(1, 2)).tolist() == answer.areas.tolist()
    for number, found in enumerate(answer):
        mask = answer.mask(number)
        assert ((answer.id_map == answer.segment_ids[number]) == mask).all()
        rows, columns = np.nonzero(mask)
        assert found.box_xyxy == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert answer.isthing.any()
    assert not answer.isthing.all()


def test_instances_are_masks_that_may_overlap_and_the_best_lies_on_top(
    client: Client, local: LocalModel, example: Path
) -> None:
    answer = client.segment(example, mode="instance")
    assert local.segment(example, mode="instance") == answer
    assert answer.isthing.all()
    assert answer.masks.sum(axis=(1, 2)).tolist() == answer.areas.tolist()
    for number in range(len(answer)):
        better = answer.masks[:number].any(axis=0)
        assert ((answer.id_map == answer.segment_ids[number]) == (answer.mask(number) & ~better)).all()
    stuff = client.segment(example)
    names = {label for label, isthing in zip(stuff.labels, stuff.isthing, strict=True) if not isthing}
    assert set(client.segment(example, mode="instance", classes=sorted(names), threshold=0.1).labels) <= names


@pytest.mark.parametrize("mode", ["panoptic", "instance"])
def test_outlines_filled_are_the_masks(mode: Any, client: Client, local: LocalModel, example: Path) -> None:
    answer = client.segment(example, mode=mode, polygons=True)
    assert local.segment(example, mode=mode, polygons=True) == answer
    for number in range(len(answer)):
        doubled = 0  # twice the area, by the shoelace formula; a hole runs the other way around
        for ring in (ring for polygon in answer.polygons(number) for ring in polygon):
            assert (ring[0] == ring[-1]).all()
            doubled += int((ring[:-1, 0] * ring[1:, 1] - ring[1:, 0] * ring[:-1, 1]).sum())
        assert abs(doubled) == 2 * answer.areas[number]
    with pytest.raises(ValueError, match="polygons=True"):
        client.segment(example, mode=mode).polygons(0)


def test_of_masks_that_overlap_the_first_is_on_top() -> None:
    everywhere = np.ones((200, 200), dtype=bool)

    def tint(category_ids: list[int]) -> Any:
        """RGB of a pixel beside the labels, of a black picture."""
        ids = np.array(category_ids)
        black, labels = Image.new("RGB", (200, 200)), ["a"] * len(ids)
        canvas = draw_masks(black, lambda _: everywhere, labels, np.ones(len(ids)), ids)
        return np.asarray(canvas)[150, 10].astype(int)

    assert (tint([1, 2]) >= tint([1])).all(), "it has its whole share"
    assert not (tint([2, 1]) >= tint([1])).all()


def test_thresholds_and_classes_are_the_servers(client: Client, local: LocalModel, example: Path) -> None:
    for asked in (client, local):
        hearts = asked.detect(example, classes="heart")
        assert set(hearts.labels) == {"heart"}
        assert asked.detect(example, classes=[int(hearts.category_ids[0])]) == hearts
        assert len(asked.detect(example, threshold=1)) == 0
        assert set(asked.segment(example, classes=["heart", "ring"]).labels) == {"heart", "ring"}


def test_a_drawing_changes_the_picture_where_something_was_found(client: Client, example: Path) -> None:
    before = np.asarray(Image.open(example))
    for answer in (client.detect(example), client.segment(example)):
        drawn = answer.draw(example)
        assert (drawn.mode, drawn.size) == ("RGB", (640, 480))
        assert (np.asarray(drawn) != before).any()
        assert answer.draw(before).tobytes() == drawn.tobytes()
    with pytest.raises(ValueError, match="is 10 x 10 and the answer is of one of 640 x 480"):
        client.detect(example).draw(np.zeros((10, 10, 3), np.uint8))
    nothing = client.segment(example, threshold=1)
    assert (np.asarray(nothing.draw(before)) == before).all()


def test_pycocotools_loads_boxes_and_masks(client: Client, example: Path) -> None:
    boxes, segments = client.detect(example), client.segment(example)
    categories = [{"id": category["id"]} for category in client.model()["categories"]]
    truth = COCO()
    truth.dataset = {"images": [{"id": 7, "height": 480, "width": 640}], "annotations": [], "categories": categories}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        of_boxes = truth.loadRes(json.loads(json.dumps(boxes.to_coco(7))))
        of_segments = truth.loadRes(json.loads(json.dumps(segments.to_coco(7))))
    loaded = of_boxes.loadAnns(of_boxes.getAnnIds(7))
    assert [entry["category_id"] for entry in loaded] == boxes.category_ids.tolist()
    x, y, width, height = loaded[0]["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], boxes.boxes_xyxy[0], atol=0.01)
    for number, entry in enumerate(of_segments.loadAnns(of_segments.getAnnIds(7))):
        assert entry["area"] == segments.areas[number]
        assert (of_segments.annToMask(entry) == segments.mask(number)).all()


def test_supervision_reads_and_draws_answers(client: Client, example: Path) -> None:
    boxes, segments = client.detect(example), client.segment(example)
    detections: Any = boxes.to_supervision()
    np.testing.assert_allclose(detections.xyxy, boxes.boxes_xyxy, rtol=1e-6)
    assert detections.data["class_name"].tolist() == list(boxes.labels)
    hearts: Any = detections[detections.data["class_name"] == "heart"]
    assert len(hearts) == boxes.labels.count("heart")
    masked: Any = segments.to_supervision()
    assert (masked.mask == segments.masks).all()
    scene = np.array(Image.open(example))
    drawn = supervision.MaskAnnotator().annotate(scene.copy(), masked)
    assert (drawn != scene).any()
    assert len(client.detect(example, threshold=1).to_supervision()) == 0
    assert len(client.segment(example, threshold=1).to_supervision()) == 0


def test_many_pictures_over_http_and_in_process_are_answered_alike(
    client: Client, local: LocalModel, example: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(example) as image:
        pictures = [image.resize((96 + 32 * (number % 3), 96)) for number in range(9)]
    answers = client.detect(pictures, progress=True)
    assert "9/9" in capsys.readouterr().err
    assert local.detect(pictures, progress=True) == answers
    assert "9/9" in capsys.readouterr().err
    assert [answer.width for answer in answers] == [picture.width for picture in pictures]
