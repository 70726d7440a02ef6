"""What both kinds of annotation file share: a malformed one is refused with the entry that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.data.formats.coco import CocoDetection

IMAGE = {"id": 42, "file_name": "a.png", "height": 6, "width": 8}
CATEGORY = {"id": 7, "name": "cup"}


def opened(folder: Path, images: list[Any], categories: list[Any]) -> CocoDetection:
    path = folder / "f.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    return CocoDetection(folder, path)


@pytest.mark.parametrize("missing", ["height", "width", "file_name"])
def test_an_image_without_a_field_is_named(tmp_path: Path, missing: str) -> None:
    image = {name: value for name, value in IMAGE.items() if name != missing}
    with pytest.raises(ValueError, match=rf"f\.json: image 42 has no {missing}"):
        opened(tmp_path, [image], [CATEGORY])


@pytest.mark.parametrize("side", [0, -1, 2.5, "six", True, None, 2**40])
def test_an_image_without_a_size_in_whole_pixels_is_named(tmp_path: Path, side: Any) -> None:
    with pytest.raises(ValueError, match=r"f\.json: image 42 has height .*(1 or more|no picture is larger)"):
        opened(tmp_path, [{**IMAGE, "height": side}], [CATEGORY])


def test_an_image_or_category_without_an_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"f\.json: image has no id"):
        opened(tmp_path, [{"file_name": "a.png"}], [CATEGORY])
    with pytest.raises(ValueError, match=r"f\.json: category has no id"):
        opened(tmp_path, [IMAGE], [{"name": "cup"}])


@pytest.mark.parametrize("id_", ["forty-two", 42.5, None, True, [42], 2**64, float("nan")])
def test_an_id_that_is_no_number_is_refused(tmp_path: Path, id_: Any) -> None:
    with pytest.raises(ValueError, match=r"f\.json: image has id .*: it must be a whole number"):
        opened(tmp_path, [{**IMAGE, "id": id_}], [CATEGORY])


@pytest.mark.parametrize("id_", ["42", " 042", 42.0, "+42"])
def test_an_id_is_a_number_however_it_is_written(tmp_path: Path, id_: Any) -> None:
    assert opened(tmp_path, [{**IMAGE, "id": id_}], [CATEGORY]).records == opened(tmp_path, [IMAGE], [CATEGORY]).records
    with pytest.raises(ValueError, match=r"f\.json: image 42 is listed twice"):
        opened(tmp_path, [IMAGE, {**IMAGE, "id": id_, "height": 99}], [CATEGORY])


def test_what_is_listed_twice_is_named_unless_it_is_the_same(tmp_path: Path) -> None:
    assert len(opened(tmp_path, [IMAGE, dict(IMAGE)], [CATEGORY])) == 1
    with pytest.raises(ValueError, match=r"f\.json: category 7 is listed twice"):
        opened(tmp_path, [IMAGE], [CATEGORY, {"id": 7, "name": "mug"}])


def test_a_file_without_categories_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"f\.json lists no category"):
        opened(tmp_path, [IMAGE], [])
