"""Every field of an annotation file against every kind of JSON value: it means the same, or it is named in one line."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.coco import CocoDetection
from model.data.coco_panoptic import CocoPanoptic
from model.data.json_fields import flag, number_from, text, whole_number
from model.evaluation.instance_truth import InstanceTruth

INSTANCES: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "1.jpg", "height": 20, "width": 30}],
    "categories": [{"id": 1, "name": "cat", "isthing": 1, "color": [1, 2, 3]}, {"id": 2, "name": "dog"}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [1, 1, 8, 8],
            "area": 64,
            "iscrowd": 0,
            "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]],
        }
    ],
}
PANOPTIC: dict[str, Any] = {
    **{name: INSTANCES[name] for name in ("images", "categories")},
    "annotations": [
        {
            "image_id": 1,
            "file_name": "1.png",
            "segments_info": [{"id": 7, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0}],
        }
    ],
}
# pycocotools under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FIELDS = [
    *(("images", name) for name in INSTANCES["images"][0]),
    *(("categories", name) for name in INSTANCES["categories"][0]),
    *(("annotations", name) for name in INSTANCES["annotations"][0]),
]
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.integers(-5, 2**66).map(str)
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner))


def meaning_of(content: dict[str, Any]) -> object:
    """All that training and evaluation make of a file, or the complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.json"
        path.write_text(json.dumps(content))
        try:
            data = CocoDetection(Path(folder), path, masks=True)
            truth = InstanceTruth.of(data)
            masks = [data.target(index)["mask_ids"].tolist() for index in range(len(data))]
        except ValueError as error:
            return str(error).replace(folder, "")
        boxes = [
            (*(box[name] for name in ("category_id", "bbox", "area", "iscrowd")),)
            for box in truth.of_picture(data.records[0].id)
        ]
        objects = (data.objects.labels.tolist(), data.objects.boxes_xywh.tolist(), data.objects.crowds)
        return data.records, data.categories, objects, masks, boxes


def changed(content: dict[str, Any], part: str, name: str, value: Any) -> dict[str, Any]:
    other = copy.deepcopy(content)
    other[part][0][name] = value
    return other


@pytest.mark.parametrize(("part", "name"), FIELDS)
@given(value=JSON)
def test_a_field_of_any_value_is_understood_or_named(part: str, name: str, value: Any) -> None:
    found = meaning_of(changed(INSTANCES, part, name, value))
    if isinstance(found, str):
        assert "\n" not in found
        assert "/f.json" in found or found.startswith("category "), found
        assert len(found) < 400


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("images", "id", "1"),
        ("images", "height", "20"),
        ("images", "width", 30.0),
        ("categories", "id", "1"),
        ("categories", "isthing", "true"),
        ("categories", "color", "#010203"),
        ("annotations", "id", "2f9c1c2e-7f0a-4a53-9d6c-0d5ff2f5f3a1"),
        ("annotations", "image_id", 1.0),
        ("annotations", "category_id", "1"),
        ("annotations", "bbox", ["1", 1.0, "8.0", 8]),
        ("annotations", "bbox", None),
        *(("annotations", "iscrowd", value) for value in ("0", "false", False, None, 0.0)),
        *(("annotations", "area", value) for value in (None, "64", float("nan"), 0, 64.0)),
        ("annotations", "segmentation", [1, 1, 9, 1, 9, 9, 1, 9]),
        ("annotations", "segmentation", [["1", 1, 9, 1, 9, 9, 1, "9"]]),
    ],
)
def test_what_tools_write_means_what_it_plainly_means(part: str, name: str, value: Any) -> None:
    assert meaning_of(changed(INSTANCES, part, name, value)) == meaning_of(INSTANCES)


@pytest.mark.parametrize("value", ["1", "true", True, 1.0])
def test_a_crowd_is_one_however_it_is_written(value: Any) -> None:
    found = meaning_of(changed(INSTANCES, "annotations", "iscrowd", value))
    assert found == meaning_of(changed(INSTANCES, "annotations", "iscrowd", 1))
    assert found != meaning_of(INSTANCES)


@pytest.mark.parametrize("name", ["id", "category_id", "bbox", "iscrowd"])
@given(value=JSON)
def test_a_field_of_a_segment_of_any_value_is_understood_or_named(name: str, value: Any) -> None:
    content = copy.deepcopy(PANOPTIC)
    content["annotations"][0]["segments_info"][0][name] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.json"
        path.write_text(json.dumps(content))
        complaint = ""
        try:
            CocoPanoptic(Path(folder), path, masks=False)
        except ValueError as error:
            complaint = str(error)
    assert not complaint or "f.json: image 1" in complaint
    assert "\n" not in complaint


@given(st.integers(-(2**63), 2**63))
def test_a_whole_number_is_the_same_as_text_and_as_a_float_where_that_is_exact(number: int) -> None:
    written: list[Any] = [number, str(number), f" {number} "] + ([float(number)] if abs(number) <= 2**53 else [])
    assert {whole_number({"id": value}, "id", "") for value in written} == {number}


def test_numbers_flags_and_text() -> None:
    assert number_from("2.5") == 2.5
    assert [number_from(value) for value in (True, None, "x", "nan", "inf", np.inf, 10**400, [1])] == [None] * 8
    assert flag({}, "iscrowd", "", default=True) is True
    assert text({"name": 7}, "name", "") == "7"
    with pytest.raises(ValueError, match="here has iscrowd 2: it must be 0 or 1"):
        flag({"iscrowd": 2}, "iscrowd", "here", default=False)
    with pytest.raises(ValueError, match="here has name ' ': it must be text"):
        text({"name": " "}, "name", "here")
