"""Panoptic annotations: masks from id PNGs, boxes from masks, things and stuff alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.mask_layers import masks_of
from model.data.shapes.command import CATEGORIES


def open_shapes(root: Path, **options: Any) -> CocoPanoptic:
    return CocoPanoptic(root / "train2017", root / "annotations" / "panoptic_train2017.json", **options)


@pytest.fixture
def own_copy(shapes_root: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may break."""
    return Path(shutil.copytree(shapes_root, tmp_path / "copy"))


def change(root: Path, **changes: Any) -> None:
    """Change fields of the first segment of the first picture."""
    path = root / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0].update(changes)
    path.write_text(json.dumps(content))


def test_categories_are_those_of_the_file(shapes_root: Path) -> None:
    assert open_shapes(shapes_root).categories == CATEGORIES


def test_masks_are_disjoint_and_cover_the_picture(shapes_root: Path) -> None:
    data = open_shapes(shapes_root)
    for index in range(len(data)):
        image, target = data[index]
        assert image.shape[1:] == target["mask_ids"].shape[1:] == tuple(target["size"].tolist())
        assert target["mask_ids"].dtype == torch.uint8
        assert len(target["mask_ids"]) == 1
        assert bool((masks_of(target).sum(dim=0) == 1).all())


def test_stuff_is_a_target_too_and_said_to_be_stuff(shapes_root: Path) -> None:
    data = open_shapes(shapes_root)
    _, target = data[0]
    assert target["isthing"].tolist() == [CATEGORIES[label].isthing for label in target["labels"].tolist()]
    assert {True, False} == set(target["isthing"].tolist())
    assert len(target["boxes"]) == len(target["labels"])


def test_boxes_of_the_file_are_those_of_the_masks(shapes_root: Path) -> None:
    with_masks, without = open_shapes(shapes_root), open_shapes(shapes_root, masks=False)
    for index in range(len(with_masks)):
        (image, target), (same_image, same) = with_masks[index], without[index]
        assert "mask_ids" not in same
        assert torch.equal(image, same_image)
        for key in ("boxes", "labels", "isthing", "image_id", "orig_size"):
            assert torch.equal(target[key], same[key])


def test_boxes_alone_need_no_png(own_copy: Path) -> None:
    shutil.rmtree(own_copy / "annotations" / "panoptic_train2017")
    assert len(open_shapes(own_copy, masks=False)[0][1]["boxes"]) >= 3


def test_crowds_are_not_targets(own_copy: Path) -> None:
    before = len(open_shapes(own_copy)[0][1]["labels"])
    change(own_copy, iscrowd=1)
    data = open_shapes(own_copy)
    _, target = data[0]
    assert len(target["labels"]) == before - 1
    assert not bool(masks_of(target).any(0).all())  # its pixels are nobody's
    assert data.objects.crowds == 1


def test_an_unknown_category_is_named_with_its_segment(own_copy: Path) -> None:
    change(own_copy, category_id=4)
    with pytest.raises(ValueError, match=r"panoptic_train2017\.json: image 1, segment \d+ has category 4"):
        open_shapes(own_copy)


@pytest.mark.parametrize("box", [[1, 1, 3], [1, 1, 3, float("nan")], [1, 1, -3, 2], None])
def test_a_malformed_box_is_named_with_its_segment(own_copy: Path, box: list[float] | None) -> None:
    change(own_copy, bbox=box)
    with pytest.raises(ValueError, match=r"panoptic_train2017\.json: image 1, segment \d+ has bbox"):
        open_shapes(own_copy)


def test_a_segment_that_is_not_in_its_png_is_named(own_copy: Path) -> None:
    change(own_copy, id=3)
    with pytest.raises(ValueError, match=r"image 1, .*000000000001\.png: segment 3 has no pixel"):
        open_shapes(own_copy)[0]


def test_a_missing_png_is_named_with_its_image(own_copy: Path) -> None:
    (own_copy / "annotations" / "panoptic_train2017" / "000000000001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 1 has no file .*000000000001\.png"):
        open_shapes(own_copy)[0]


def test_a_png_of_another_size_than_its_picture_is_refused(own_copy: Path) -> None:
    png = own_copy / "annotations" / "panoptic_train2017" / "000000000001.png"
    Image.new("RGB", (5, 5)).save(png)
    with pytest.raises(ValueError, match=r"image 1, .*\.png, is 5 x 5 pixels"):
        open_shapes(own_copy)[0]


def test_a_picture_without_an_annotation_is_named(own_copy: Path) -> None:
    path = own_copy / "annotations" / "panoptic_train2017.json"
    content = json.loads(path.read_text())
    del content["annotations"][3]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"panoptic_train2017\.json: image 4 has no annotation"):
        open_shapes(own_copy)
