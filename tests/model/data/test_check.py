"""A broken data set is told so before training, in a line that names file and id; a good one is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from model.data.check import check_categories, check_dataset
from model.data.formats.coco import CocoDetection
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.folders import open_dataset

FIFTH = "000000000005"
NOTHING = "nothing can be learnt from it or judged by it"


@pytest.fixture
def root(shapes_root: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may break."""
    return Path(shutil.copytree(shapes_root, tmp_path / "copy"))


def opened(root: Path, *, masks: bool = True) -> CocoDataset:
    return open_dataset("coco-panoptic", root, "train", masks=masks)


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def complaint(data: CocoDataset, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as raised:
        check_dataset(data, workers=3)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("kind", ["coco", "coco-panoptic"])
def test_a_good_data_set_passes_and_is_counted(shapes_root: Path, kind: str, workers: int) -> None:
    data = open_dataset(kind, shapes_root, "train", masks=kind != "coco")
    report = check_dataset(data, workers=workers)
    assert report.images == 24
    labels = [label for index in range(len(data)) for label in data[index][1]["labels"].tolist()]
    assert dict(report.boxes) == {c.name: labels.count(i) for i, c in enumerate(data.categories)}
    assert (report.degenerate, report.outside, report.crowds) == (0, 0, 0)


def test_what_is_left_out_and_clipped_is_counted_and_said(root: Path) -> None:
    file = root / "annotations" / "instances_train2017.json"
    boxes = {0: [0, 0, 5, 5], 1: [3, 3, 0, 4], 2: [-3, 2, 9, 9], 3: [900, 2, 9, 9], 4: [0, 0, 9, 9.4]}

    def edit(content: dict[str, Any]) -> None:
        content["annotations"] = content["annotations"][:6]
        content["images"] = content["images"][:8]
        for entry in content["annotations"]:
            entry.update(image_id=1, category_id=3)
        for position, box in boxes.items():
            content["annotations"][position]["bbox"] = box
        content["annotations"][5]["iscrowd"] = 1

    change(file, edit)
    report = check_dataset(open_dataset("coco", root, "train", masks=False), workers=1)
    assert (report.images, report.images_without_objects) == (8, 7)
    assert (report.degenerate, report.outside, report.crowds) == (2, 1, 1)
    assert dict(report.boxes)["triangle"] == sum(count for _, count in report.boxes) == 3
    assert str(report).splitlines() == [
        "instances_train2017.json: 8 images, 7 of them without an object",
        "  boxes: 3, in 1 of 8 classes: triangle 3",
        "  boxes that reach outside their picture: 1, clipped",
        "  most pictures have no object, and teach what is none: leave out those that nobody has annotated",
        "  left out: 2 boxes without an area, 1 crowds",
        "  classes without a box: circle, square, star, cross, ring, heart, arrow",
    ]


def test_what_may_be_a_mistake_is_said(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        first, second = content["images"][:2]
        content["images"].append(first | {"id": 500})
        wide, high = first["width"] + 3, second["height"] + 3
        box = [1, 1, 8, 8]
        content["annotations"] = [
            {"id": 1, "image_id": first["id"], "segmentation": [[1, 1, wide, 1, 1, 9]]},
            {"id": 2, "image_id": second["id"], "segmentation": [[1, 1, 9, high, 1, 9], [2, 2, 3, 2, 3, 3]]},
            {"id": 3, "image_id": second["id"], "segmentation": [[0, 0, second["width"], 0, 5, second["height"]]]},
        ]
        for entry in content["annotations"]:
            entry |= {"category_id": 3, "bbox": box, "iscrowd": 0, "area": 64}

    change(root / "annotations" / "instances_train2017.json", edit)
    report = check_dataset(open_dataset("coco", root, "train", masks=True), workers=1)
    assert [line for line in str(report).splitlines() if "outside" in line or "several" in line] == [
        "  boxes that reach outside their picture: 0, clipped",
        "  objects whose polygons reach outside their picture: 2, clipped",
        "  pictures that are listed under several ids, with objects of their own under each: 1, 000000000001.jpg",
    ]


def test_a_report_of_many_classes_stays_short(shapes_root: Path) -> None:
    lines = str(check_dataset(opened(shapes_root), workers=1)).splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("  boxes: ")
    assert lines[1].endswith(" and 4 more")


@pytest.mark.parametrize("kind", ["coco", "coco-panoptic"])
def test_a_missing_picture_is_named(root: Path, kind: str) -> None:
    picture = root / "train2017" / f"{FIFTH}.jpg"
    picture.unlink()
    data = open_dataset(kind, root, "train", masks=False)
    assert complaint(data, FileNotFoundError) == f"image 5 has no file {picture}"


def test_a_truncated_picture_is_named(root: Path) -> None:
    picture = root / "train2017" / f"{FIFTH}.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    assert complaint(opened(root)) == f"image 5, {picture}, cannot be decoded: the JPEG image is broken or incomplete"


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xe0" + bytes(40)])
def test_a_file_that_is_no_picture_is_named(root: Path, content: bytes) -> None:
    picture = root / "train2017" / f"{FIFTH}.jpg"
    picture.write_bytes(content)
    assert complaint(opened(root)).startswith(f"image 5, {picture}, cannot be decoded: ")


def test_a_picture_of_another_size_is_named(root: Path) -> None:
    picture = root / "train2017" / f"{FIFTH}.jpg"
    Image.new("RGB", (20, 10)).save(picture)
    assert complaint(opened(root)).startswith(f"image 5, {picture}, is 20 x 10 pixels but annotated as ")


@pytest.mark.parametrize("kind", ["coco", "coco-panoptic"])
def test_a_picture_in_a_format_that_is_not_served_is_named(root: Path, kind: str) -> None:
    picture = root / "train2017" / f"{FIFTH}.jpg"
    with Image.open(picture) as image:
        image.save(picture, "BMP")
    said = complaint(open_dataset(kind, root, "train", masks=False))
    formats = "pictures have to be JPEG, PNG or WebP, as the service takes them"
    assert said == f"image 5, {picture}, is a BMP file: {formats}"


def lay(path: Path, orientation: int) -> None:
    """Say in a file how to turn it, and leave its pixels as they are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.save(path, exif=exif)


def test_pictures_whose_frame_only_exif_tells_are_counted_and_named(root: Path) -> None:
    assert "EXIF" not in str(check_dataset(opened(root), workers=1))
    files = sorted((root / "train2017").iterdir())
    sides = []
    for file in files:
        with Image.open(file) as image:
            sides.append(image.size)
    oblong = [file for file, (width, height) in zip(files, sides, strict=True) if width != height]
    square = [file for file, (width, height) in zip(files, sides, strict=True) if width == height]
    assert len(oblong) > 14
    for file, orientation in zip(oblong, [2, 3, 4, *[3] * 6, 5, 6, 7, 8, 1], strict=False):
        lay(file, orientation)
    for file in square[:2]:
        lay(file, 6)
    report = check_dataset(opened(root), workers=3)
    assert report.either_way == tuple(sorted(file.name for file in [*oblong[:9], *square[:2]]))
    assert report.as_stored == tuple(file.name for file in oblong[9:13])
    either, stored = str(report).splitlines()[-2:]
    first, more = ", ".join(report.either_way[:8]), len(report.either_way) - 8
    assert either == (
        "  pictures that EXIF turns and whose size fits both ways, taken as displayed: "
        f"{len(report.either_way)}, {first} and {more} more"
    )
    assert stored == (
        f"  pictures annotated as stored and taken so, though the service turns them by EXIF: 4, "
        f"{', '.join(report.as_stored)}"
    )


def test_a_missing_folder_of_pictures_is_named(root: Path) -> None:
    shutil.rmtree(root / "train2017")
    assert complaint(opened(root), FileNotFoundError).startswith(f"there is no folder {root / 'train2017'}")


def test_of_several_complaints_the_first_is_made(root: Path) -> None:
    for name in (f"{FIFTH}.jpg", "000000000009.jpg", "000000000024.jpg"):
        (root / "train2017" / name).unlink()
    assert complaint(opened(root), FileNotFoundError).startswith("image 5 ")


def test_a_missing_id_png_is_named_where_masks_are_learnt(root: Path) -> None:
    png = root / "annotations" / "panoptic_train2017" / f"{FIFTH}.png"
    png.unlink()
    assert complaint(opened(root), FileNotFoundError) == f"image 5 has no file {png}"
    assert check_dataset(opened(root, masks=False), workers=1).images == 24


def test_an_odd_id_png_is_named(root: Path) -> None:
    png = root / "annotations" / "panoptic_train2017" / f"{FIFTH}.png"
    good = png.read_bytes()
    with Image.open(png) as image:
        size = image.size
    Image.new("RGB", (20, 10)).save(png)
    assert complaint(opened(root)).startswith(f"image 5, {png}, is 20 x 10 pixels but annotated as ")
    Image.new("L", size).save(png)
    assert complaint(opened(root)) == (f"image 5, {png}, is a PNG of mode L: segment ids need a PNG of mode RGB")
    Image.new("RGB", size).save(png, format="JPEG")
    assert complaint(opened(root)).startswith(f"image 5, {png}, is a JPEG of mode RGB")
    png.write_bytes(good[: len(good) // 2])
    assert complaint(opened(root)).startswith(f"image 5, {png}, cannot be decoded: ")
    png.write_bytes(good[:60] + bytes([good[60] ^ 255]) + good[61:])
    assert complaint(opened(root)).startswith(f"image 5, {png}, cannot be decoded: ")


@pytest.mark.parametrize("kind", ["coco", "coco-panoptic"])
def test_a_data_set_of_nothing_is_refused(root: Path, kind: str) -> None:
    def edit(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["segments_info"] = []
        if kind == "coco":
            content["annotations"] = []

    name = "instances_train2017.json" if kind == "coco" else "panoptic_train2017.json"
    change(root / "annotations" / name, edit)
    said = complaint(open_dataset(kind, root, "train", masks=False))
    assert said == f"{root / 'annotations' / name} has no object in any of its 24 images: {NOTHING}"


def test_a_data_set_of_crowds_only_is_refused(root: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for entry in content["annotations"]:
            entry["iscrowd"] = 1

    change(root / "annotations" / "instances_train2017.json", edit)
    assert "no object" in complaint(open_dataset("coco", root, "train", masks=False))


def with_categories(folder: Path, name: str, categories: list[dict[str, Any]]) -> CocoDataset:
    images = [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}]
    path = folder / name
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    return CocoDetection(folder, path)


@pytest.mark.parametrize(
    ("val", "said"),
    [
        ([{"id": 3, "name": "fork"}], "category 7 is 'cup' in .*train.json but missing in .*val.json"),
        ([{"id": 3, "name": "fork"}, {"id": 7, "name": "mug"}], "category 7 is 'cup' in .* but 'mug' in .*val.json"),
        (
            [{"id": 3, "name": "fork"}, {"id": 5, "name": "pan"}, {"id": 7, "name": "cup"}],
            "category 5 is missing in .*train.json but 'pan' in .*val.json",
        ),
    ],
)
def test_categories_that_differ_are_named(tmp_path: Path, val: list[dict[str, Any]], said: str) -> None:
    train = with_categories(tmp_path, "train.json", [{"id": 3, "name": "fork"}, {"id": 7, "name": "cup"}])
    with pytest.raises(ValueError, match=said):
        check_categories(train, with_categories(tmp_path, "val.json", val))


def test_categories_may_be_listed_in_any_order_and_color(tmp_path: Path) -> None:
    train = with_categories(tmp_path, "train.json", [{"id": 3, "name": "fork"}, {"id": 7, "name": "cup"}])
    other = [{"id": 7, "name": "cup", "color": [1, 2, 3]}, {"id": 3, "name": "fork"}]
    check_categories(train, with_categories(tmp_path, "val.json", other))
