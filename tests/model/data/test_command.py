"""`detr data` says what would be learnt from a folder, and divides one that has no validation set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.data.formats.folders import open_dataset
from service.cli import main
from tests.model.data.formats.layout_folders import PICTURES, names, write_coco, write_layout, write_pictures
from tests.model.data.formats.yolo_voc_folders import VOC, YOLO


def said(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    main(["data", *map(str, words)])
    return capsys.readouterr().out


def refused(*words: str | Path) -> str:
    with pytest.raises(SystemExit) as raised:
        main(["data", *map(str, words)])
    message = str(raised.value.code)
    assert "\n" not in message
    return message


def test_what_would_be_learnt_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_layout(tmp_path, "Roboflow")
    lines = said(capsys, "check", tmp_path).splitlines()
    file = tmp_path / "valid" / "_annotations.coco.json"
    assert f"val: 3 pictures of {tmp_path / 'valid'}, annotated in {file}" in lines
    for line in (
        "  boxes: 3, in 2 of 2 classes: cup 2, fork 1",
        "  sizes of pictures: 24 x 16 pixels, half of them up to 24 wide",
        "  longer sides of boxes: 12 to 12 pixels, half of them up to 12",
        "  objects in a picture: up to 1",
        "  masks: every object has one",
    ):
        assert lines.count(line) == 2, line
    assert lines[-4:] == [
        "boxes of      train        val",
        "fork              1          1",
        "cup               2          2",
        f"learn from it with: detr train --data coco --root {tmp_path}",
    ]


@pytest.mark.parametrize(("kind", "tool"), [("yolo", "Ultralytics"), ("voc", "labelImg"), ("coco", "Label Studio")])
def test_the_kind_of_a_folder_is_seen(kind: str, tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "coco":
        write_layout(tmp_path, tool)
    else:
        (YOLO if kind == "yolo" else VOC)[tool](tmp_path)
    output = said(capsys, "check", tmp_path)
    assert f"detr train --data {kind} --root {tmp_path}" in output
    assert ("without the tenth that is kept to validate with" in output) is (tool != "Ultralytics")
    assert ("  masks: none are learnt, because " in output) is (kind != "coco")


def test_what_cannot_be_learnt_is_one_line(tmp_path: Path) -> None:
    write_pictures(tmp_path, PICTURES)
    assert refused("check", tmp_path).startswith(
        f"detr data check: {tmp_path} looks like no data set: there are ash.png,"
    )
    write_layout(tmp_path / "inner", "CVAT")
    assert refused("check", tmp_path).endswith(f"; {tmp_path / 'inner'} looks like one")
    (tmp_path / "inner" / "images" / "default" / "elm.png").unlink()
    assert "image 4 has no file" in refused("check", tmp_path / "inner")
    assert refused("check", tmp_path / "nowhere") == f"detr data check: there is no folder {tmp_path / 'nowhere'}"


@pytest.mark.parametrize("layout", ["CVAT", "Label Studio", "one file beside the pictures"])
def test_a_folder_of_coco_is_divided_by_pictures(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_layout(tmp_path, layout)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    output = said(capsys, "split", tmp_path, "--share", "0.34")
    train, val = (tmp_path / "annotations" / f"instances_{name}.json" for name in ("train", "val"))
    assert output.splitlines() == [
        f"wrote {train}: 4 pictures, 4 annotations",
        f"wrote {val}: 2 pictures, 2 annotations",
        f"learn from it with: detr train --data coco --root {tmp_path}",
    ]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - before == {train, val}
    parts = [open_dataset("coco", tmp_path, split, masks=True) for split in ("train", "val")]
    assert sorted(names(parts[0]) + names(parts[1])) == sorted(PICTURES)
    assert [data.annotations for data in parts] == [train, val]
    assert [data.renamed for data in parts] == [(), ()]
    assert "has a validation set already" in refused("split", tmp_path)


@pytest.mark.parametrize(("kind", "tool"), [("yolo", "Label Studio"), ("voc", "labelImg"), ("voc", "CVAT")])
def test_a_folder_of_another_kind_is_divided_into_coco(kind: str, tool: str, tmp_path: Path) -> None:
    (YOLO if kind == "yolo" else VOC)[tool](tmp_path)
    whole = [open_dataset(kind, tmp_path, split, masks=False) for split in ("train", "val")]
    main(["data", "split", str(tmp_path)])
    parts = [open_dataset("coco", tmp_path, split, masks=False) for split in ("train", "val")]
    for before, after in zip(whole, parts, strict=True):
        assert names(after) == names(before)  # which are those that training would have kept
        assert after.objects.boxes_xywh.tolist() == before.objects.boxes_xywh.tolist()
        assert after.categories == before.categories
        assert (after.images / after.records[0].file_name).is_file()


def test_the_seed_decides_and_nothing_is_written_over(tmp_path: Path) -> None:
    many = [f"{i}.png" for i in range(40)]
    chosen: list[set[str]] = []
    for seed in ("0", "0", "1"):
        root = tmp_path / f"{len(chosen)}"
        write_coco(root / "result.json", root / "images", many)
        main(["data", "split", str(root), "--seed", seed])
        content = json.loads((root / "annotations" / "instances_val.json").read_text())
        chosen.append({image["file_name"] for image in content["images"]})
    assert chosen[0] == chosen[1] != chosen[2]
    written = tmp_path / "0" / "annotations" / "instances_train.json"
    (tmp_path / "0" / "annotations" / "instances_val.json").unlink()
    before = written.read_bytes()
    assert refused("split", tmp_path / "0", "--annotations", tmp_path / "0" / "result.json").endswith(
        f"{written} is there already, and nothing is written over it"
    )
    assert written.read_bytes() == before
    assert refused("split", tmp_path / "0", "--share", "1").endswith("--share must be between 0 and 1, not 1")


def test_panoptic_data_are_not_divided(tiny_shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").symlink_to(tiny_shapes / "train2017")
    for name in ("panoptic_train2017", "panoptic_train2017.json"):
        (tmp_path / "annotations" / name).symlink_to(tiny_shapes / "annotations" / name)
    assert "only annotations of things are split" in refused("split", tmp_path, "--data", "coco-panoptic")
