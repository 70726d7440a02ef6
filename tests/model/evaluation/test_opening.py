"""Annotation files as tools export them: figures are those of the same data written plainly, or the entry is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.data.formats.folders import find_split
from model.evaluate import EvaluatedModel, evaluate
from model.evaluation.evaluator import EvaluationResult
from tests.model.evaluation.oracle import Oracle, metadata
from tests.model.evaluation.scenes import CAT, SCENES, write_scenes

File = dict[str, Any]
Edit = Callable[[File], object]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SCENES with masks: what every other is compared with. The oracle finds all but what is left out or moved."""
    root = tmp_path_factory.mktemp("base")
    write_scenes(root, dict(enumerate(SCENES, start=10)))
    path = instances(root)
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        x, y, width, height = entry["bbox"]
        entry["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    path.write_text(json.dumps(content))
    return root


def instances(root: Path) -> Path:
    return root / "annotations" / "instances_val2017.json"


def result_of(root: Path) -> EvaluationResult:
    loaded = EvaluatedModel(Oracle(silent=frozenset({2})), metadata())
    return evaluate(loaded, find_split("coco", root, "val")).result()


def edited(base: Path, to: Path, edit: Edit) -> Path:
    root = shutil.copytree(base, to / "data")
    content = json.loads(instances(root).read_text())
    edit(content)
    instances(root).write_text(json.dumps(content))
    return root


def every(part: str, **fields: Any) -> Edit:
    """Set fields of all entries: to a value, to what a function makes of the entry, or, by `...`, to nothing."""

    def edit(content: File) -> None:
        for number, entry in enumerate(content[part]):
            for name, value in fields.items():
                if value is ...:
                    entry.pop(name)
                else:
                    entry[name] = value(entry, number) if callable(value) else value

    return edit


def numbered_from_0(content: File, *, root_class: bool = False) -> None:
    new = {entry["id"]: number + root_class for number, entry in enumerate(content["categories"])}
    for entry in content["categories"]:
        entry["id"] = new[entry["id"]]
    for entry in content["annotations"]:
        entry["category_id"] = new[entry["category_id"]]
    if root_class:
        content["categories"].insert(0, {"id": 0, "name": "animals", "supercategory": "none"})


SAME: dict[str, Edit] = {
    "ids of annotations from 0": every("annotations", id=lambda entry, number: number),
    "ids of annotations all 0": every("annotations", id=0),
    "ids of annotations missing": every("annotations", id=...),
    "ids of annotations UUIDs": every("annotations", id=lambda entry, number: f"2f9c1c2e-7f0a-4a53-{number:04}"),
    "area 0": every("annotations", area=0),
    "area null": every("annotations", area=None),
    "no iscrowd, no area": every("annotations", iscrowd=..., area=...),
    **{f"iscrowd {value!r}": every("annotations", iscrowd=value) for value in (None, False, "0", "false", "")},
    "boxes as text": every("annotations", bbox=lambda entry, number: [str(side) for side in entry["bbox"]]),
    "boxes left to the polygons": every("annotations", bbox=...),
    "polygons without a list around": every("annotations", segmentation=lambda entry, _: entry["segmentation"][0]),
    "category ids as text": every("annotations", category_id=lambda entry, _: str(entry["category_id"])),
    "ids of categories as text": every("categories", id=lambda entry, _: str(entry["id"])),
    "categories from 0": numbered_from_0,
    "a root class": lambda content: numbered_from_0(content, root_class=True),
    "a name twice": lambda content: content["categories"].append({"id": 99, "name": CAT.name}),
    "ids of images as floats": every("images", id=lambda entry, _: float(entry["id"])),
    "ids of images as text": every("annotations", image_id=lambda entry, _: str(entry["image_id"])),
    "sizes as text": every(
        "images", height=lambda entry, _: str(entry["height"]), width=lambda e, _: float(e["width"])
    ),
    "an image listed twice": lambda content: content["images"].append(dict(content["images"][0])),
    "file names of another machine": every(
        "images", file_name=lambda e, _: f"C:\\x\\val2017\\{e['file_name'].upper()}"
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_data_in_other_words_has_the_same_figures(base: Path, tmp_path: Path, name: str) -> None:
    found, wanted = result_of(edited(base, tmp_path, SAME[name])), result_of(base)
    assert 0.2 < wanted.figures["AP"] < 0.9
    assert found.figures == wanted.figures
    annotated = {row.category.name: row.annotated for row in found.classes if row.annotated}
    assert annotated == {row.category.name: row.annotated for row in wanted.classes if row.annotated}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_so_has_a_file_in_another_encoding(base: Path, tmp_path: Path, encoding: str) -> None:
    root = shutil.copytree(base, tmp_path / "data")
    instances(root).write_text(instances(base).read_text(), encoding=encoding)
    assert result_of(root).figures == result_of(base).figures


@pytest.mark.parametrize("without", ["no masks", "some masks"])
def test_boxes_do_not_depend_on_masks_that_are_missing(base: Path, tmp_path: Path, without: str) -> None:
    def edit(content: File) -> None:
        for entry in content["annotations"][: None if without == "no masks" else 1]:
            entry["segmentation"] = []

    found, wanted = result_of(edited(base, tmp_path, edit)), result_of(base)
    assert found.figures == {name: value for name, value in wanted.figures.items() if "_mask" not in name}
    assert any("AP of masks is left out" in note and "annotation 1 has no segmentation" in note for note in found.notes)


def first(part: str, **fields: Any) -> Edit:
    return lambda content: content[part][0].update(fields)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (first("annotations", image_id=777), "annotation 1 belongs to image 777, which is not in the file"),
        (first("annotations", category_id=77), "annotation 1 has category 77, which is not among the categories"),
        (first("annotations", category_id=None), "annotation 1 has category_id None: it must be a whole number"),
        (first("annotations", bbox=[float("nan"), 1, 2, 2]), r"annotation 1 has bbox \[nan, 1, 2, 2\]"),
        (first("annotations", bbox=[9, 9, -4, 2]), r"annotation 1 has bbox .*must not be negative"),
        (first("annotations", bbox=[], segmentation=[]), r"annotation 1 has bbox \[\]"),
        (first("annotations", iscrowd="maybe"), "annotation 1 has iscrowd 'maybe': it must be 0 or 1"),
        (first("annotations", area=1e11), "annotation 1 has area 1.*: it must be a number of pixels"),
        (
            first("annotations", segmentation={"size": [40, 32], "counts": [1280]}),
            r"annotation 1 has run lengths for size \[40, 32\], but its picture is",
        ),
        (
            first("annotations", segmentation={"size": [32, 32], "counts": "abc"}),
            "the segmentation of annotation number 1 cannot be used",
        ),
        (first("images", height=0), "image 10 has height 0: it must be a whole number, 1 or more"),
        (first("images", width=-1), "image 10 has width -1"),
        (lambda content: content["images"][0].pop("width"), "image 10 has no width"),
        (first("categories", name=None), "category 7 has name None: it must be text"),
        (
            lambda content: content.update(annotations={}),
            "instances_val2017.json has annotations {}: it must be a list",
        ),
    ],
)
def test_what_has_no_plain_meaning_is_refused_in_a_line_that_names_it(
    base: Path, tmp_path: Path, edit: Edit, said: str
) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        result_of(edited(base, tmp_path, edit))
    assert "\n" not in str(raised.value)
    assert "instances_val2017.json" in str(raised.value)


def test_a_list_of_results_is_not_an_annotation_file(base: Path, tmp_path: Path) -> None:
    root = shutil.copytree(base, tmp_path / "data")
    instances(root).write_text(json.dumps(json.loads(instances(base).read_text())["annotations"]))
    with pytest.raises(ValueError, match=r"instances_val2017\.json is not an annotation file: it has no annotations"):
        result_of(root)
