"""COCO results of `detr predict`, read by pycocotools."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pycocotools.coco import COCO

from service.cli import main
from service.predict.files import image_ids

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000139.jpg", "a/285.png"], [139, 285]),
        (["a/1.jpg", "b/1.jpg"], [1, 2]),
        (["cat.jpg", "7.jpg"], [1, 2]),
        (["20240131093012123456.jpg", "7.jpg"], [1, 2]),
    ],
)
def test_a_picture_has_the_number_of_its_file_where_all_have_one_of_their_own(names: list[str], ids: list[int]) -> None:
    assert image_ids([Path(name) for name in names]) == ids


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools with numpy 2
@pytest.mark.parametrize("task", ["detect", "segment", "segment --mode instance"])
def test_pycocotools_reads_the_results(task: str, tmp_path: Path) -> None:
    picture, out = tmp_path / "000000000139.jpg", tmp_path / "results.json"
    picture.write_bytes((REPOSITORY / "docs" / "example.jpg").read_bytes())
    words = (
        "predict",
        str(picture),
        "--task",
        *task.split(),
        "--format",
        "coco",
        "--json",
        str(out),
        "--device",
        "cpu",
    )
    assert main([*words, "--device", "cpu"]) == 0
    truth = COCO()
    ids = {entry["category_id"] for entry in json.loads(out.read_text())}
    truth.dataset = {"images": [{"id": 139, "height": 480, "width": 640}], "annotations": [], "info": {}}
    truth.dataset["categories"] = [{"id": each, "name": str(each)} for each in ids]
    truth.createIndex()
    results = truth.loadRes(str(out))
    found = results.loadAnns(results.getAnnIds(imgIds=[139]))
    assert len(found) > 3
    for entry in found:
        x, y, width, height = entry["bbox"]
        assert 0 <= x < x + width <= 640.1
        assert 0 <= y < y + height <= 480.1
        if task != "detect":
            assert results.annToMask(entry).sum() == entry["area"]
