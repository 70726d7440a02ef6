"""A share of the pictures is the same every time, and a category above all others is no class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.data.check import check_categories, check_dataset
from model.data.formats.annotations import Annotations, held_out_ids, only_pictures
from model.data.formats.coco import CocoDetection
from model.data.formats.folders import find_split
from tests.model.data.formats.layout_folders import PICTURES, coco_content, write_json, write_pictures

ROOT = {"id": 0, "name": "kitchen", "supercategory": "none"}
BELOW: list[dict[str, Any]] = [{"id": i, "name": n, "supercategory": "kitchen"} for i, n in ((1, "fork"), (2, "cup"))]


def opened(folder: Path, categories: list[dict[str, Any]], name: str = "result.json", **changes: Any) -> CocoDetection:
    content = coco_content(PICTURES) | {"categories": categories}
    content["annotations"][0] |= changes
    write_pictures(folder / "images", PICTURES)
    write_json(folder / name, content)
    data = find_split("coco", folder, "train").open(masks=False)
    assert isinstance(data, CocoDetection)
    return data


@pytest.mark.parametrize("root", [ROOT, ROOT | {"id": 7}, {"id": 0, "name": "kitchen"}])
def test_a_root_category_without_an_object_is_left_out_and_said(root: dict[str, Any], tmp_path: Path) -> None:
    data = opened(tmp_path, [root, *BELOW])
    assert [(category.id, category.name) for category in data.categories] == [(1, "fork"), (2, "cup")]
    said = f"left out: category {root['id']}, 'kitchen', which all others are below, and no object is of"
    assert said in str(check_dataset(data, workers=1))


@pytest.mark.parametrize(
    "categories",
    [
        [ROOT, BELOW[0], BELOW[1] | {"supercategory": "table"}],
        [BELOW[0] | {"supercategory": "fork"}, BELOW[1] | {"supercategory": "cup"}],
        [BELOW[0], BELOW[1], {"id": 3, "name": "plate", "supercategory": "kitchen"}],
    ],
)
def test_another_category_without_an_object_stays(categories: list[dict[str, Any]], tmp_path: Path) -> None:
    assert len(opened(tmp_path, categories).categories) == len(categories)


def test_a_root_category_with_an_object_stays(tmp_path: Path) -> None:
    for given in (0, "0", 0.0):
        assert len(opened(tmp_path, [ROOT, *BELOW], category_id=given).categories) == 3


def test_validation_may_lack_objects_of_the_root_that_training_has(tmp_path: Path) -> None:
    train = opened(tmp_path / "train", [ROOT, *BELOW], category_id=0)
    val = opened(tmp_path / "val", [ROOT, *BELOW])
    check_categories(train, val)
    with pytest.raises(ValueError, match=r"category 0 is missing in .* but 'kitchen' in"):
        check_categories(val, train)


@pytest.mark.parametrize(("count", "kept"), [(1, 0), (2, 1), (6, 1), (24, 2), (100, 10)])
def test_a_share_is_one_at_least_and_never_all(count: int, kept: int) -> None:
    images = [{"id": number, "file_name": f"{number}.jpg"} for number in range(count)]
    ids = held_out_ids(images)
    assert len(ids) == kept
    assert held_out_ids(images[::-1]) == ids
    moved = [image | {"file_name": rf"C:\pictures\{image['file_name']}"} for image in images]
    assert held_out_ids(moved) == ids
    if count == 100:
        assert held_out_ids(images, seed=1) != ids
        assert ids <= held_out_ids(images, share=0.3)


def test_both_parts_of_the_pictures_have_their_own_annotations() -> None:
    read = Annotations(coco_content(PICTURES))
    read.content["annotations"].append({"image_id": 99})  # whose complaint is not lost
    parts = [only_pictures(read, {2, 5}, kept=kept).content for kept in (True, False)]
    assert [[image["id"] for image in part["images"]] for part in parts] == [[2, 5], [1, 3, 4, 6]]
    assert [[entry["image_id"] for entry in part["annotations"]] for part in parts] == [[2, 5, 99], [1, 3, 4, 6, 99]]
