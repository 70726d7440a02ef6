"""Patterns of known layouts are met in any case, and what is not found is told with what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.data.formats.layouts import COCO, PANOPTIC, contents_of, find, matching, names_of


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_name_as_it_is_written_goes_before_one_in_another_case(tmp_path: Path) -> None:
    touch(tmp_path, "Train/a.json", "train/a.json")
    assert matching(tmp_path, "train/*.json") == [tmp_path / "train" / "a.json"]
    assert matching(tmp_path, "TRAIN/*.json") == [tmp_path / "Train" / "a.json", tmp_path / "train" / "a.json"]
    assert matching(tmp_path, ".") == [tmp_path]
    assert matching(tmp_path / "train" / "a.json", "b") == []


def test_the_layout_of_a_split_is_found_by_any_name_of_it(tmp_path: Path) -> None:
    touch(tmp_path, "annotations/instances_Validation.json", "images/Validation/1.jpg")
    place = find(COCO, tmp_path, "val")
    assert place is not None
    assert place.annotations == tmp_path / "annotations" / "instances_Validation.json"
    assert place.images[0] == tmp_path / "images" / "Validation"
    assert find(COCO, tmp_path, "train") is None


def test_data_without_splits_is_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "result.json")
    assert find(COCO, tmp_path, "train") is None
    place = find(COCO, tmp_path, None)
    assert place is not None
    assert (place.tool, place.annotations) == ("Label Studio", tmp_path / "result.json")


def test_json_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"categories": [], "info": {}}')
    assert find(COCO, tmp_path, None) is None
    (tmp_path / "mine.json").write_text('{"categories": [], "images": [], "annotations": []}')
    place = find(COCO, tmp_path, None)
    assert place is not None
    assert place.annotations.name == "mine.json"


def test_a_split_of_any_other_name_is_looked_for_as_it_is_written(tmp_path: Path) -> None:
    assert names_of("night[1]") == ("night[1]",)
    touch(tmp_path, "annotations/instances_night[1].json", "annotations/instances_night1.json")
    place = find(COCO, tmp_path, "night[1]")
    assert place is not None
    assert place.annotations.name == "instances_night[1].json"


def test_files_of_segments_lie_where_those_of_instances_do(tmp_path: Path) -> None:
    touch(tmp_path, "annotations/panoptic_train2017.json", "annotations/instances_train2017.json")
    place = find(PANOPTIC, tmp_path, "train")
    assert place is not None
    assert place.annotations.name == "panoptic_train2017.json"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "is nothing"),
        (["a.txt"], "is a.txt"),
        (["b/c.txt", "a.txt"], "are a.txt and b/"),
        ([f"{i:02}" for i in range(20)], "are " + ", ".join(f"{i:02}" for i in range(12)) + " and 8 more"),
    ],
)
def test_what_a_folder_holds_is_told_in_a_few_words(names: list[str], said: str, tmp_path: Path) -> None:
    touch(tmp_path, *names)
    assert contents_of(tmp_path) == said
