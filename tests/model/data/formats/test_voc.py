"""Pascal VOC's data sets mean what the same boxes mean in COCO's JSON, or are refused with file and object."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.check import check_dataset
from model.data.formats.folders import NamedFiles, find_split, open_dataset
from tests.model.data.formats.layout_folders import HEIGHT, PICTURES, WIDTH, names, write_pictures
from tests.model.data.formats.yolo_voc_folders import (
    BOX,
    HALVES,
    VOC,
    devkit,
    label_img_voc,
    label_studio_voc,
    voc_xml,
    write,
)


@pytest.mark.parametrize("layout", VOC)
def test_every_layout_has_the_objects_of_its_twin_in_coco(layout: str, tmp_path: Path) -> None:
    VOC[layout](tmp_path)
    opened = {}
    for split in ("train", "val"):
        data = open_dataset("voc", tmp_path, split, masks=False)
        assert [(category.id, category.name) for category in data.categories] == [(1, "cup"), (2, "fork")]
        assert all((data.images / record.file_name).is_file() for record in data.records)
        assert data.objects.boxes_xywh.tolist() == [list(BOX)] * len(data)
        assert data.sizes == [(HEIGHT, WIDTH)] * len(data)
        opened[split] = names(data)
        check_dataset(data, workers=1)
    assert sorted(opened["train"] + opened["val"]) == sorted(PICTURES)
    if layout in ("Pascal VOC", "Roboflow"):
        assert opened["val"] == sorted(HALVES["val"])


def test_the_classes_of_a_split_are_those_of_all(tmp_path: Path) -> None:
    devkit(tmp_path)
    write(tmp_path / "Annotations" / "oak.xml", voc_xml("oak.png", "ant"))
    write(tmp_path / "notes.xml", "<notes/>")
    for split in ("train", "val"):
        data = open_dataset("voc", tmp_path, split, masks=False)
        assert [category.name for category in data.categories] == ["ant", "cup", "fork"]


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("The VOC2007 Database", (3, 1, 13, 9)),
        ("PASCAL VOC 2012", (3, 1, 13, 9)),
        ("roboflow.ai", (3, 1, 13, 9)),
        ("Unknown", BOX),
        ("", BOX),
    ],
)
def test_who_wrote_a_box_decides_which_pixels_it_has(database: str, expected: tuple[int, ...], tmp_path: Path) -> None:
    label_img_voc(tmp_path)
    write(tmp_path / "ash.xml", voc_xml("ash.png", "cup", database=database))
    entries = find_split("voc", tmp_path, None, NamedFiles(tmp_path)).read().content["annotations"]
    assert tuple(entries[0]["bbox"]) == expected


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_outlines_are_masks_and_without_a_box_it_is_around_them(tmp_path: Path) -> None:
    corners = ((4, 2), (16, 2), (16, 10), (4, 10))
    points = "".join(f"<x{i}>{x}</x{i}><y{i}>{y}</y{i}>" for i, (x, y) in enumerate(corners, 1))
    label_img_voc(tmp_path)
    for name in PICTURES:
        text = voc_xml(name, "cup", more=f"<polygon>{points}</polygon>")
        if name == PICTURES[1]:
            text = text[: text.index("<bndbox>")] + text[text.index("</bndbox>") + len("</bndbox>") :]
        write(tmp_path / Path(name).with_suffix(".xml"), text)
    data = open_dataset("voc", tmp_path, "train", masks=True)
    assert data.objects.boxes_xywh.tolist() == [list(BOX)] * len(data)
    _, target = data[0]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:10, 4:16] = True
    assert (target["mask_ids"][0] == target["mask_values"][0]).numpy().tolist() == expected.tolist()


def test_a_picture_is_known_by_the_name_of_its_file_or_by_the_name_inside(tmp_path: Path) -> None:
    label_studio_voc(tmp_path)
    write(tmp_path / "Annotations" / "ash.xml", voc_xml(r"C:\old\name.jpg", "cup"))
    (tmp_path / "Annotations" / "elm.xml").rename(tmp_path / "Annotations" / "7.xml")
    (tmp_path / "images" / "fir.png").rename(tmp_path / "images" / "FIR.PNG")
    data = find_split("voc", tmp_path, None, NamedFiles(tmp_path / "Annotations")).open(masks=False)
    assert names(data) == sorted(["FIR.PNG", *(name for name in PICTURES if name != "fir.png")])


def test_sizes_that_are_left_out_are_those_of_the_pictures(tmp_path: Path) -> None:
    label_img_voc(tmp_path)
    for name, size in (("ash", "<width>0</width><height>0</height>"), ("elm", "")):
        text = (tmp_path / f"{name}.xml").read_text()
        start, end = text.index("<size>"), text.index("</size>")
        write(tmp_path / f"{name}.xml", f"{text[:start]}<size>{size}{text[end:]}")
    data = find_split("voc", tmp_path, None, NamedFiles(tmp_path)).open(masks=False)
    assert data.sizes == [(HEIGHT, WIDTH)] * len(PICTURES)


def test_pictures_that_nobody_annotated_are_left_out_and_counted(tmp_path: Path) -> None:
    label_img_voc(tmp_path)
    (tmp_path / "ash.xml").unlink()
    (tmp_path / "elm.xml").unlink()
    data = find_split("voc", tmp_path, None, NamedFiles(tmp_path)).open(masks=False)
    assert len(data) == len(PICTURES) - 2
    assert "left out: 2 pictures that have no XML file, such as ash.png" in str(check_dataset(data, workers=1))


def test_boxes_from_corner_to_corner_are_the_same_and_parts_of_an_object_are_no_objects(tmp_path: Path) -> None:
    label_img_voc(tmp_path)
    part = "<part><name>lid</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    text = voc_xml("ash.png", "cup", more=part).replace("xmin>4", "xmin>16").replace("xmax>16", "xmax>4")
    write(tmp_path / "ash.xml", text)
    data = find_split("voc", tmp_path, None, NamedFiles(tmp_path)).open(masks=False)
    assert data.objects.boxes_xywh.tolist() == [list(BOX)] * len(PICTURES)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("<xmin>4</xmin>", "<xmin>four</xmin>", "ash.xml, object 1, has xmin 'four': it must be a number of pixels"),
        ("<xmin>4</xmin>", "<xmin>nan</xmin>", "ash.xml, object 1, has xmin 'nan'"),
        ("<ymax>10</ymax>", "", "ash.xml, object 1, has ymax ''"),
        ("<name>cup</name>", "", "ash.xml, object 1, has no name"),
        ("bndbox", "box", "ash.xml, object 1, has no bndbox"),
        ("<width>24</width>", "<width>wide</width>", "ash.xml has the size wide x 16: it must be two numbers"),
        ("</annotation>", "", "ash.xml is not XML that can be read: no element found: line 1, column"),
        ("<annotation>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>", "ash.xml is not XML that can be read: Entities"),
        ("annotation>", "annotations>", "ash.xml is no annotation of Pascal VOC: it begins with <annotations>"),
    ],
)
def test_what_means_nothing_is_refused_by_file_and_object(old: str, new: str, said: str, tmp_path: Path) -> None:
    label_img_voc(tmp_path)
    text = voc_xml("ash.png", "cup")
    assert old in text
    write(tmp_path / "ash.xml", text.replace(old, new))
    with pytest.raises(ValueError, match=said) as raised:
        open_dataset("voc", tmp_path, "train", masks=False)
    assert "\n" not in str(raised.value)


def test_what_is_listed_and_missing_is_named(tmp_path: Path) -> None:
    devkit(tmp_path)
    write(tmp_path / "ImageSets/Main/train.txt", 'ash  1\n"birch"\nask\n')
    with pytest.raises(FileNotFoundError, match=r"train.txt lists ask, and there is no .*ask.xml"):
        open_dataset("voc", tmp_path, "train", masks=False)
    (tmp_path / "JPEGImages" / "elm.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"elm.xml has no picture: .*JPEGImages has no elm of any ending, nor 'elm"
    ):
        open_dataset("voc", tmp_path, "val", masks=False)


def test_a_folder_that_is_none_says_what_was_looked_for(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", PICTURES)
    with pytest.raises(
        FileNotFoundError, match=r"no Pascal VOC annotations of the split 'train': looked for ImageSets/Main"
    ):
        open_dataset("voc", tmp_path, "train", masks=False)
