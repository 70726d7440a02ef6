"""YOLO's data sets mean what the same boxes and outlines mean in COCO's JSON, or are refused with file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.check import check_dataset
from model.data.formats.coco import CocoDetection
from model.data.formats.folders import NamedFiles, find_split, find_splits, open_dataset
from tests.model.data.formats.layout_folders import HEIGHT, PICTURES, WIDTH, names, write_layout, write_pictures
from tests.model.data.formats.yolo_voc_folders import BOX, HALVES, YOLO, roboflow, ultralytics, write, yolo_line


@pytest.mark.parametrize("layout", YOLO)
def test_every_layout_has_the_objects_of_its_twin_in_coco(layout: str, tmp_path: Path) -> None:
    YOLO[layout](tmp_path / "yolo")
    write_layout(tmp_path / "coco", "COCO 2017")
    opened = {}
    for split in ("train", "val"):
        data = open_dataset("yolo", tmp_path / "yolo", split, masks=False)
        assert [(category.id, category.name) for category in data.categories] == [(0, "fork"), (1, "cup")]
        assert all((data.images / record.file_name).is_file() for record in data.records)
        assert data.objects.boxes_xywh == pytest.approx(np.array([BOX] * len(data)), abs=1e-6)
        opened[split] = names(data)
        twin = open_dataset("coco", tmp_path / "coco", split, masks=False)
        if names(twin) == names(data):
            assert data.sizes == twin.sizes
            assert data.objects.labels.tolist() == twin.objects.labels.tolist()
        check_dataset(data, workers=1)
    assert sorted(opened["train"] + opened["val"]) == sorted(PICTURES)
    if layout not in ("Label Studio", "labelImg"):
        assert opened["val"] == sorted(HALVES["val"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_outlines_are_masks(tmp_path: Path) -> None:
    roboflow(tmp_path)
    data = open_dataset("yolo", tmp_path, "train", masks=True)
    assert isinstance(data, CocoDetection)
    _, target = data[0]
    left, top, width, height = BOX
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[top : top + height, left : left + width] = True
    assert (target["mask_ids"][0] == target["mask_values"][0]).numpy().tolist() == expected.tolist()
    entry = find_split("yolo", tmp_path, "train").read().content["annotations"][0]
    assert entry["area"] == pytest.approx(width * height, rel=1e-6)


def test_boxes_alone_are_no_masks(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    with pytest.raises(ValueError, match=r"annotation of ash.txt, line 1 has no segmentation"):
        open_dataset("yolo", tmp_path, "train", masks=True)


def test_a_file_of_the_data_set_may_be_named_instead_of_its_folder(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    (tmp_path / "data.yaml").rename(tmp_path / "fork.yaml")
    named = NamedFiles(tmp_path / "fork.yaml")
    assert len(find_split("yolo", None, None, named).open(masks=False)) == 3
    for val in (NamedFiles(), named):
        splits = find_splits("yolo", None, named, val)
        assert [names(split.open(masks=False)) for split in splits] == [sorted(HALVES[name]) for name in HALVES]
    assert len(open_dataset("yolo", tmp_path / "fork.yaml", "val", masks=False)) == 3
    assert len(open_dataset("yolo", tmp_path, "val", masks=False)) == 3
    with pytest.raises(ValueError, match=r"the pictures of YOLO data are where its data\.yaml says"):
        find_split("yolo", tmp_path, "val", NamedFiles(None, tmp_path))


def test_pictures_may_be_in_several_folders_and_elsewhere(tmp_path: Path) -> None:
    ultralytics(tmp_path / "there")
    said = f"train: [{tmp_path}/there/images/train, ../there/images/val]\nnames: [fork, cup]\n"
    write(tmp_path / "here" / "data.yaml", said)
    data = open_dataset("yolo", tmp_path / "here", "train", masks=False)
    val = open_dataset("yolo", tmp_path / "here", "val", masks=False)
    assert sorted(names(data) + names(val)) == sorted(PICTURES)
    check_dataset(data, workers=1)


def test_pictures_without_labels_are_empty_and_counted_and_lines_that_repeat_are_one(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    (tmp_path / "labels/train/ash.txt").unlink()
    line = yolo_line(0)
    write(tmp_path / "labels/train/birch.txt", f"{line}\n\n{line}\n")
    write(tmp_path / "labels/train/cedar.txt", "\n")
    said = str(check_dataset(open_dataset("yolo", tmp_path, "train", masks=False), workers=1))
    assert "3 images, 2 of them without an object" in said
    assert "taken as without objects: 1 pictures that have no file of labels, such as ash.png" in said
    assert "left out: 1 lines that repeat another line of their file" in said


def test_classes_of_a_pose_are_learnt_and_its_points_are_not(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    text = (tmp_path / "data.yaml").read_text()
    write(tmp_path / "data.yaml", text + "kpt_shape: [2, 3]\n")
    write(tmp_path / "labels/train/ash.txt", yolo_line(1) + " 0.1 0.2 2 0.3 0.4 0\n")
    data = open_dataset("yolo", tmp_path, "train", masks=False)
    assert data.objects.labels.tolist()[:1] == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 0.5 0.5 0.1", "line 2 has 4 numbers: it must have a class, then a box of four or an outline"),
        ("0 0.5 0.5 0.1 0.1 0.9", "line 2 has 6 numbers"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.3 0.9", "line 2 has 8 numbers"),
        ("fork 0.5 0.5 0.1 0.1", "line 2 is 'fork 0.5 0.5 0.1 0.1': a line has numbers only"),
        ("0,0.5,0.5,0.1,0.1", "line 2 is '0,0.5,0.5,0.1,0.1': a line has numbers only"),
        ("2 0.5 0.5 0.1 0.1", r"line 2 has class 2, which has no name: .*data\.yaml names 0, 1"),
        ("0.5 0.5 0.5 0.1 0.1", r"line 2 has class 0\.5, which has no name"),
        ("-1 0.5 0.5 0.1 0.1", "line 2 has class -1, which has no name"),
        ("nan 0.5 0.5 0.1 0.1", "line 2 has class nan, which has no name"),
        ("0 12 8 6 4", "line 2 has numbers that are no fractions of the picture's sides, from 0 to 1"),
        ("0 0.5 0.5 nan 0.1", "line 2 has numbers that are no fractions"),
        ("0 0.5 0.5 -0.1 0.1", "line 2 has numbers that are no fractions"),
        ("0 0.1 0.1 0.2 0.2 1.2 0.3", "line 2 has numbers that are no fractions"),
    ],
)
def test_a_line_that_means_nothing_is_refused_by_file_and_number(text: str, said: str, tmp_path: Path) -> None:
    ultralytics(tmp_path)
    file = write(tmp_path / "labels/train/birch.txt", f"{yolo_line(0)}\n{text}\n")
    with pytest.raises(ValueError, match=said) as raised:
        open_dataset("yolo", tmp_path, "train", masks=False)
    assert str(raised.value).startswith(f"{file}, line 2")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: images/train\nnames: fork\n", "has names 'fork': it must be a list of names"),
        ("train: images/train\nnames: {a: fork}\n", "has class 'a' with the name 'fork'"),
        ("train: images/train\nnames: [fork, null]\n", "has class 1 with the name None"),
        ("train: images/train\nnames: [fork, cup]\nnc: 3\n", "has nc 3 but 2 names"),
        ("train: images/tain\nnames: [fork, cup]\n", r"has train: images/tain, which is not there: looked for .*tain"),
        ("train: 7\nnames: [fork, cup]\n", "has train: 7, which is not there"),
        ("train: images/train\nnames: [fork, cup]\nkpt_shape: 5\n", "has kpt_shape 5: it must be two whole numbers"),
        ("train: images/train\nval: [\n", "is not YAML"),
        ("train: images/train\n", "names no classes"),
        ("train: labels\nnames: [fork, cup]\n", "train names no picture"),
    ],
)
def test_a_data_set_that_means_nothing_is_refused(text: str, said: str, tmp_path: Path) -> None:
    ultralytics(tmp_path)
    file = write(tmp_path / "data.yaml", text)
    with pytest.raises((ValueError, FileNotFoundError), match=said) as raised:
        open_dataset("yolo", tmp_path, "train", masks=False)
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


def test_labels_that_lie_elsewhere_are_missed_with_where_they_should_be(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "annotations")
    with pytest.raises(
        ValueError, match=r"none of the 3 pictures has labels: for .*ash.png, looked for .*labels"
    ) as raised:
        open_dataset("yolo", tmp_path, "train", masks=False)
    assert f"{tmp_path / 'labels/train/ash.txt'} and {tmp_path / 'images/train/ash.txt'}" in str(raised.value)


def test_a_picture_of_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    write(tmp_path / "data.yaml", "train: train.txt\nnames: [fork, cup]\n")
    write(tmp_path / "train.txt", "./images/train/ash.png\n\nimages/train/ask.png\n")
    with pytest.raises(FileNotFoundError, match=r"train.txt, picture 2 of the list, is 'images/train/ask.png'"):
        open_dataset("yolo", tmp_path, "train", masks=False)


def test_what_is_no_picture_or_no_text_is_named(tmp_path: Path) -> None:
    ultralytics(tmp_path)
    (tmp_path / "labels/train/ash.txt").write_bytes(b"0 0.5 0.5 0.1 \xff")
    with pytest.raises(ValueError, match=r"ash.txt is no text of labels: byte 14 is none of UTF-8"):
        open_dataset("yolo", tmp_path, "train", masks=False)
    write_pictures(tmp_path / "images/train", ["ash.bmp"])
    with pytest.raises(ValueError, match=r"ash.bmp is a BMP file: pictures have to be JPEG, PNG or WebP"):
        open_dataset("yolo", tmp_path, "train", masks=False)


def test_a_folder_that_is_none_says_what_was_looked_for(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images", PICTURES)
    with pytest.raises(
        FileNotFoundError, match=r"no YOLO data set of the split 'train': looked for data\.yaml, .*; there is"
    ):
        open_dataset("yolo", tmp_path, "train", masks=False)
    ultralytics(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it looks like --data yolo$"):
        open_dataset("coco", tmp_path, "train", masks=False)
