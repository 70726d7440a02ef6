"""A data set is found by its folder, its kind and its split, or by the names of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.data.formats.coco import CocoDetection
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.folders import NamedFiles, find_split, find_splits, open_dataset
from model.data.shapes.command import CATEGORIES
from tests.model.data.formats.layout_folders import (
    LAYOUTS,
    PICTURES,
    coco_content,
    names,
    write_coco,
    write_json,
    write_layout,
    write_pictures,
)

THINGS = tuple(category for category in CATEGORIES if category.isthing)
CONTENT_KINDS = ("shapes", "coco", "coco-panoptic")


@pytest.mark.parametrize("kind", CONTENT_KINDS)
@pytest.mark.parametrize(("split", "count"), [("train", 6), ("val", 4)])
def test_every_kind_of_content_opens(tiny_shapes: Path, kind: str, split: str, count: int) -> None:
    data = open_dataset(kind, tiny_shapes, split, masks=False)
    assert isinstance(data, CocoDetection if kind == "coco" else CocoPanoptic)
    assert len(data) == count
    assert data.categories == (THINGS if kind == "coco" else CATEGORIES)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
@pytest.mark.parametrize("kind", CONTENT_KINDS)
def test_masks_are_read_if_they_are_asked_for(tiny_shapes: Path, kind: str) -> None:
    data = open_dataset(kind, tiny_shapes, "train", masks=True)
    plain = open_dataset(kind, tiny_shapes, "train", masks=False)
    image, target = data[0]
    assert target["mask_ids"].shape[1:] == image.shape[1:]
    assert "mask_ids" not in plain[0][1]
    assert torch.equal(target["labels"], plain[0][1]["labels"])


def test_an_unknown_kind_is_refused_by_name(tiny_shapes: Path) -> None:
    with pytest.raises(ValueError, match="data is 'coko'; it must be one of shapes, coco, coco-panoptic, yolo, voc"):
        open_dataset("coko", tiny_shapes, "train", masks=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pictures_of_every_layout_are_found(layout: str, tmp_path: Path) -> None:
    write_layout(tmp_path, layout)
    train, val = (open_dataset("coco", tmp_path, split, masks=False) for split in ("train", "val"))
    for data in (train, val):
        assert all((data.images / record.file_name).is_file() for record in data.records)
        assert len(data[0][1]["boxes"]) == 1
    assert len(train) + len(val) == len(PICTURES)
    assert not set(names(train)) & set(names(val))
    if "{split}" in LAYOUTS[layout].annotations:
        assert names(val) == sorted(PICTURES[-3:])


def test_the_name_of_a_split_may_be_in_any_case_and_in_its_other_words(tmp_path: Path) -> None:
    for split, words in (("Train", PICTURES[:4]), ("Validation", PICTURES[4:])):
        write_coco(tmp_path / f"annotations/instances_{split}.json", tmp_path / "images" / split, words)
    for asked in ("val", "valid", "validation"):
        assert names(open_dataset("coco", tmp_path, asked, masks=False)) == sorted(PICTURES[4:])


def test_pictures_of_both_splits_may_share_a_folder(tmp_path: Path) -> None:
    for split, words in (("train", PICTURES[:4]), ("val", PICTURES[4:])):
        write_coco(tmp_path / f"annotations/instances_{split}.json", tmp_path / "pictures", words)
    assert find_split("coco", tmp_path, "val").open(masks=False).images == tmp_path
    (tmp_path / "pictures").rename(tmp_path / "images")
    assert find_split("coco", tmp_path, "val").open(masks=False).images == tmp_path / "images"


def test_a_folder_without_a_known_layout_is_refused_with_what_was_looked_for_and_what_is_there(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", PICTURES[:1])
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FileNotFoundError) as raised:
        find_split("coco", tmp_path, "train")
    said = str(raised.value)
    assert said.startswith(f"{tmp_path} holds no COCO annotations of the split 'train': looked for ")
    for looked in ("annotations/instances_train2017.json", "train/_annotations.coco.json", "result.json"):
        assert looked in said
    assert "; there are notes.txt and photos/; --annotations and --images name other places" in said


@pytest.mark.parametrize("kind", CONTENT_KINDS)
def test_a_split_that_is_not_there_is_named(tiny_shapes: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"of the split 'test': looked for .*; there are annotations/, train"):
        open_dataset(kind, tiny_shapes, "test", masks=False)
    with pytest.raises(FileNotFoundError, match=f"there is no folder {tmp_path / 'nowhere'}"):
        open_dataset(kind, tmp_path / "nowhere", "train", masks=False)


def test_a_folder_that_holds_the_one_that_is_meant_says_so(tmp_path: Path) -> None:
    write_layout(tmp_path / "project-7", "Roboflow")
    with pytest.raises(FileNotFoundError, match=f"; --root {tmp_path / 'project-7'} has them"):
        find_split("coco", tmp_path, "train")


def test_a_folder_of_another_kind_says_so(tmp_path: Path) -> None:
    write_layout(tmp_path, "CVAT")
    with pytest.raises(FileNotFoundError, match=r"; it looks like --data coco$"):
        find_split("coco-panoptic", tmp_path, "train")


def test_several_files_that_could_be_meant_are_named(tmp_path: Path) -> None:
    for name in ("one.json", "other.json"):
        write_coco(tmp_path / name, tmp_path / "images", PICTURES)
    with pytest.raises(ValueError, match=r"holds one\.json and other\.json: say with --annotations which is meant"):
        find_split("coco", tmp_path, "train")


def test_without_a_validation_set_a_tenth_is_kept_the_same_one_every_time(tmp_path: Path) -> None:
    many = [f"{i}.png" for i in range(30)]
    write_coco(tmp_path / "result.json", tmp_path / "images", many)
    train, val = (open_dataset("coco", tmp_path, split, masks=False) for split in ("train", "val"))
    assert (len(train), len(val)) == (27, 3)
    assert {*names(train), *names(val)} == set(many)
    # Another order of the file and other ids change nothing.
    write_json(tmp_path / "result.json", coco_content(many[::-1]))
    assert names(open_dataset("coco", tmp_path, "val", masks=False)) == names(val)
    assert find_split("coco", tmp_path, "val").describe(val) == (
        f"val: 3 pictures of {tmp_path / 'images'}, annotated in {tmp_path / 'result.json'}, the tenth that is kept to "
        "validate with, because there is no validation set"
    )


def test_of_one_picture_none_is_kept(tmp_path: Path) -> None:
    write_coco(tmp_path / "result.json", tmp_path / "images", PICTURES[:1])
    assert len(open_dataset("coco", tmp_path, "train", masks=False)) == 1
    with pytest.raises(ValueError, match="lists one picture, so that none can be kept to validate with"):
        open_dataset("coco", tmp_path, "val", masks=False)


def test_files_may_be_named_and_pictures_are_then_looked_for_near_them(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "odd" / "export-3.dat", tmp_path / "odd" / "images", PICTURES)
    assert names(find_split("coco", None, None, NamedFiles(file)).open(masks=False)) == sorted(PICTURES)
    (tmp_path / "odd" / "images").rename(tmp_path / "elsewhere")
    data = find_split("coco", None, None, NamedFiles(file, tmp_path / "elsewhere")).open(masks=False)
    assert data.images == tmp_path / "elsewhere"
    with pytest.raises(ValueError, match="--root names its folder, --annotations its annotations"):
        find_split("coco", None, "val")
    with pytest.raises(ValueError, match="has no split 'test': it is divided into train and val only"):
        find_split("coco", None, "test", NamedFiles(file))


def test_what_validates_is_named_is_in_the_folder_or_is_a_tenth(tmp_path: Path) -> None:
    file = write_coco(tmp_path / "mine.json", tmp_path / "images", PICTURES)
    other = write_coco(tmp_path / "other.json", tmp_path / "images", PICTURES[:2])
    write_layout(tmp_path / "roboflow", "Roboflow")

    def opened(root: Path | None, train: NamedFiles, val: NamedFiles) -> list[int]:
        return [len(split.open(masks=False)) for split in find_splits("coco", root, train, val)]

    assert opened(None, NamedFiles(file), NamedFiles(other)) == [6, 2]
    assert opened(None, NamedFiles(file), NamedFiles()) == [5, 1]
    assert opened(tmp_path / "roboflow", NamedFiles(file), NamedFiles()) == [6, 3]
    assert opened(tmp_path / "roboflow", NamedFiles(), NamedFiles(other)) == [3, 2]
    (held_out,) = names(find_split("coco", None, "val", NamedFiles(file)).open(masks=False))
    assert held_out not in names(find_splits("coco", None, NamedFiles(file))[0].open(masks=False))
