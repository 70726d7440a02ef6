"""COCO's entries, read by pycocotools itself."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.coco_segments import read_id_png
from tests.service.conftest import Serving

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools under numpy 2
]

IMAGE_ID = 397133


def truth(path: Path, entries: list[dict[str, Any]]) -> COCO:
    """A file in which the image has these objects, as pycocotools opens it."""
    annotations = [
        {
            "id": number,
            "image_id": IMAGE_ID,
            "category_id": entry["category_id"],
            "bbox": entry.get("bbox", [0, 0, 1, 1]),
            "area": 500.0,
            "iscrowd": 0,
        }
        | ({"segmentation": entry["segmentation"]} if "segmentation" in entry else {})
        for number, entry in enumerate(entries, start=1)
    ]
    categories = [{"id": number, "name": str(number)} for number in {entry["category_id"] for entry in entries}]
    images = [{"id": IMAGE_ID, "width": 128, "height": 96}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": {}}))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def average_precision(coco: COCO, results: list[dict[str, Any]], kind: str) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.loadRes(deepcopy(results))  # which writes into them
        evaluation = COCOeval(coco, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


async def test_pycocotools_reads_the_boxes(serving: Serving, jpeg: bytes, tmp_path: Path) -> None:
    async with serving() as app:
        told = (await app.detect(jpeg)).json()["detections"]
        entries = (await app.detect(jpeg, params={"format": "coco", "image_id": IMAGE_ID})).json()
        unnamed = (await app.detect(jpeg, params={"format": "coco"})).json()
    assert [entry.keys() for entry in entries] == [{"image_id", "category_id", "bbox", "score"}] * len(told)
    for entry, detection in zip(entries, told, strict=True):
        box = detection["box"]
        expected = [box["x1"], box["y1"], box["x2"] - box["x1"], box["y2"] - box["y1"]]
        assert entry["bbox"] == pytest.approx(expected, abs=0.02)
        assert (entry["image_id"], entry["category_id"], entry["score"]) == (
            IMAGE_ID, detection["category_id"], detection["score"],
        )  # fmt: skip
    assert [entry["image_id"] for entry in unnamed] == [0] * len(told)
    coco = truth(tmp_path / "truth.json", entries)
    assert average_precision(coco, entries, "bbox") == pytest.approx(1)


async def test_pycocotools_reads_the_masks_of_instances(serving: Serving, jpeg: bytes, tmp_path: Path) -> None:
    query = {"mode": "instance"}
    async with serving() as app:
        told = (await app.segment(jpeg, params=query)).json()["segments"]
        entries = (await app.segment(jpeg, params=query | {"format": "coco", "image_id": str(IMAGE_ID)})).json()
    assert [entry.keys() for entry in entries] == [{"image_id", "category_id", "segmentation", "score"}]
    assert [entry["segmentation"] for entry in entries] == [segment["rle"] for segment in told]
    coco = truth(tmp_path / "truth.json", entries)
    assert average_precision(coco, entries, "segm") == pytest.approx(1)
    with contextlib.redirect_stdout(io.StringIO()):
        found = coco.loadRes(deepcopy(entries))
    for entry, segment in zip(found.dataset["annotations"], told, strict=True):
        assert (coco.annToMask(entry).sum(), entry["area"]) == (segment["area"], segment["area"])
        box = segment["box"]
        assert list(entry["bbox"]) == [box["x1"], box["y1"], box["x2"] - box["x1"], box["y2"] - box["y1"]]


async def test_a_panoptic_entry_and_its_file_are_coco_s(serving: Serving, jpeg: bytes, tmp_path: Path) -> None:
    async with serving() as app:
        told = (await app.segment(jpeg)).json()
        entry = (await app.segment(jpeg, params={"format": "coco", "image_id": IMAGE_ID})).json()
    assert entry.keys() == {"image_id", "file_name", "segments_info", "panoptic_png"}
    assert (entry["image_id"], entry["file_name"]) == (IMAGE_ID, "000000397133.png")
    assert entry["panoptic_png"] == told["panoptic_png"]
    ids = read_id_png(base64.b64decode(entry["panoptic_png"]))
    assert set(np.unique(ids)) == {segment["id"] for segment in entry["segments_info"]}
    for ours, segment in zip(told["segments"], entry["segments_info"], strict=True):
        assert [segment[key] for key in ("id", "category_id", "isthing", "score", "area")] == [
            ours[key] for key in ("id", "category_id", "isthing", "score", "area")
        ]
        x, y, width, height = segment["bbox"]
        assert (segment["area"], (x, y, x + width, y + height)) == (
            (ids == segment["id"]).sum(),
            tuple(ours["box"].values()),
        )
