"""Every field of an annotation file against every kind of JSON value: it means the same, or it is named in one line."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.formats.annotations import Annotations, without_root
from model.data.formats.coco import CocoDetection
from model.data.formats.coco_files import read_annotations
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.json_fields import flag, number_from, text, whole_number
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
# One of each type of JSON, by the words in which a report of a failure is read.
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "bool": st.booleans(),
    "int": st.integers(-3, 300),
    "huge int": st.integers(2**53, 2**70) | st.integers(-(2**70), -(2**53)),
    "float": st.floats(-1e6, 1e6) | st.integers(-3, 300).map(float),
    "not finite": st.sampled_from([float("nan"), float("inf"), -float("inf")]),
    "text": st.text(max_size=8),
    "digits": st.integers(-5, 2**66).map(str) | st.sampled_from(["1", "1.0", " 1 ", "1e3", "0", "00", "١"]),
    "word": st.sampled_from(["true", "false", "True", "yes", "null", "nan", "#010203", "cat", "1.jpg", "a/1.jpg"]),
    "empty text": st.just(""),
    "list": st.lists(st.integers(-3, 300) | st.floats() | st.none() | st.text(max_size=2), max_size=8),
    "nested list": st.lists(st.lists(st.integers(0, 40) | st.floats() | st.none(), max_size=9), max_size=3),
    "object": st.dictionaries(
        st.sampled_from(["size", "counts", "id", "x"]), st.lists(st.integers(0, 700)) | st.text()
    ),
}
ANY_VALUE = st.one_of(*VALUES.values())
Place = tuple[str | int, ...]  # keys and positions from the top of a file

OF_IMAGES: list[Place] = [("images", 0, name) for name in INSTANCES["images"][0]]
OF_CATEGORIES: list[Place] = [("categories", 0, name) for name in INSTANCES["categories"][0]]
# What is beside the fields that mean something, and the lists and entries as a whole.
IGNORED: list[Place] = [
    ("info",),
    ("licenses",),
    ("images", 0, "license"),
    ("categories", 0, "supercategory"),
    ("annotations", 0, "keypoints"),
]
WHOLE: list[Place] = [
    *((name,) for name in ("images", "categories", "annotations")),
    *((name, 0) for name in ("images", "categories", "annotations")),
]
OF_ANNOTATIONS: list[Place] = [("annotations", 0, name) for name in INSTANCES["annotations"][0]]
SEGMENT: Place = ("annotations", 0, "segments_info", 0)
OF_SEGMENTS: list[Place] = [
    ("annotations", 0, "image_id"),
    ("annotations", 0, "file_name"),
    ("annotations", 0, "segments_info"),
    SEGMENT,
    *((*SEGMENT, name) for name in ("id", "category_id", "bbox", "iscrowd")),
]


# What else than its name a complaint names a field by. Another id may leave what refers to it without its object.
NAMED_BY: dict[str | int, tuple[str, ...]] = {
    0: ("image", "annotation", "category"),
    "id": ("id", "category 1,", "image 1"),
    "image_id": ("image",),
    "category_id": ("category",),
    "segments_info": ("segment",),
    "segmentation": ("segmentation", "polygon", "run lengths"),
}


def meaning_of(content: Any) -> object:
    """All that training and evaluation make of an instances file, or the complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.json"
        path.write_text(json.dumps(content))
        try:
            read = without_root(Annotations(read_annotations(path)))
            data = CocoDetection(Path(folder), path, masks=True, read=read)
            truth = InstanceTruth.of(data)
            masks = [data.target(index)["mask_ids"].tolist() for index in range(len(data))]
        except ValueError as error:
            return str(error).replace(folder, "")
        boxes = [
            [(*(box[name] for name in ("category_id", "bbox", "area", "iscrowd")),) for box in truth.of_picture(image)]
            for image in truth.images
        ]
        objects = (data.objects.labels.tolist(), data.objects.boxes_xywh.tolist(), data.objects.crowds)
        return data.records, data.categories, objects, masks, boxes


def panoptic_meaning_of(content: Any) -> object:
    """The same of a panoptic file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.json"
        path.write_text(json.dumps(content))
        try:
            data = CocoPanoptic(Path(folder), path, masks=False)
        except ValueError as error:
            return str(error).replace(folder, "")
        objects = (data.objects.labels.tolist(), data.objects.boxes_xywh.tolist(), data.objects.crowds)
        return data.records, data.categories, objects, data._segment_ids.tolist(), data._png_names


def put(content: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """The content with another value in a place; `...` takes the field away."""
    other = copy.deepcopy(content)
    inner: Any = other
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        inner.pop(place[-1], None)
    else:
        inner[place[-1]] = value
    return other


def plainly(name: str | int, value: Any) -> Any:
    """What COCO's format has in place of a value that tools write, told apart by the name of the field."""
    if name in ("id", "image_id", "category_id", "height", "width"):
        return int(value) if isinstance(value, (int, str)) else int(float(value))
    if name == "iscrowd":
        return int(str(value).strip().lower() in ("1", "1.0", "true", "yes"))
    if name == "isthing":
        return int(value in (None, "") or str(value).strip().lower() in ("1", "1.0", "true", "yes"))
    if name in ("name", "file_name"):
        return str(value)
    if name == "area":
        return ... if value in (None, "") or value != value or float(value) == 0 else float(value)
    if name == "bbox":
        return [1, 1, 8, 8] if not value else [float(side) for side in value]
    return value


def check_said_or_plain(base: dict[str, Any], place: Place, value: Any, meaning: Callable[[Any], object]) -> None:
    """A value is refused in a line that names file and field, or means what it plainly means."""
    found = meaning(put(base, place, value))
    if isinstance(found, str):
        assert "\n" not in found
        assert "f.json" in found
        assert len(found) < 400
        assert any(word in found for word in NAMED_BY.get(place[-1], (str(place[-1]),))) or len(place) == 1, found
    elif place in IGNORED or (place[-1] == "id" and place[0] == "annotations" and len(place) == 3):
        assert found == meaning(base)
    elif isinstance(place[-1], str) and len(place) > 2 and place[-1] not in ("segmentation", "color", "segments_info"):
        assert found == meaning(put(base, place, plainly(place[-1], value)))


@pytest.mark.parametrize("place", [*OF_IMAGES, *OF_CATEGORIES, *OF_ANNOTATIONS, *IGNORED, *WHOLE], ids=str)
@given(value=ANY_VALUE)
def test_a_field_of_any_value_means_what_it_plainly_means_or_is_named(place: Place, value: Any) -> None:
    check_said_or_plain(INSTANCES, place, value, meaning_of)


@pytest.mark.parametrize("place", [*OF_IMAGES, *OF_CATEGORIES, *OF_SEGMENTS, *IGNORED, *WHOLE], ids=str)
@given(value=ANY_VALUE)
def test_so_does_a_field_of_panoptic_annotations(place: Place, value: Any) -> None:
    check_said_or_plain(PANOPTIC, place, value, panoptic_meaning_of)


@pytest.mark.parametrize("id_", [2**24, 2**63, 2**63 + 0.0, -1])
def test_a_segment_id_that_is_no_colour_is_refused(id_: float) -> None:
    found = panoptic_meaning_of(put(PANOPTIC, (*SEGMENT, "id"), id_))
    assert "it must be a whole number from 0 to 16777215" in str(found)


def changed(content: dict[str, Any], part: str, name: str, value: Any) -> dict[str, Any]:
    return put(content, (part, 0, name), value)


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


def test_two_segments_of_a_picture_with_one_id_are_refused() -> None:
    twice = copy.deepcopy(PANOPTIC)
    twice["annotations"][0]["segments_info"] *= 2
    assert panoptic_meaning_of(twice) == (
        "/f.json: image 1, segment 7 is listed twice: each segment of a picture has an id of its own"
    )


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
