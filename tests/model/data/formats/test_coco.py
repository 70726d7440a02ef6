"""Instance annotations: what becomes a target, and what a broken data set is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from model.data.formats.coco import CocoDetection
from model.data.formats.mask_layers import masks_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

CATEGORIES = [{"id": 7, "name": "cup"}, {"id": 3, "name": "fork", "color": [1, 2, 3]}]
IMAGE = {"id": 42, "file_name": "a.png", "height": 6, "width": 8}
FORK: dict[str, Any] = {
    "id": 1,
    "image_id": 42,
    "category_id": 3,
    "bbox": [1, 1, 3, 2],
    "area": 6,
    "iscrowd": 0,
    "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
}
# Column by column: 12 pixels out, 6 in, 30 out. That is the third column of eight.
CUP: dict[str, Any] = {
    **FORK,
    "id": 2,
    "category_id": 7,
    "bbox": [2, 0, 1, 6],
    "segmentation": {"size": [6, 8], "counts": [12, 6, 30]},
}


def write(root: Path, annotations: list[dict[str, Any]], **changes: Any) -> Path:
    content = {"images": [IMAGE], "categories": CATEGORIES, "annotations": annotations, **changes}
    path = root / "instances.json"
    path.write_text(json.dumps(content))
    Image.fromarray(np.full((6, 8, 3), 200, dtype=np.uint8)).save(root / "a.png")
    return path


def test_an_item_is_a_picture_with_boxes_labels_and_masks(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [FORK, CUP]), masks=True)
    image, target = data[0]
    assert len(data) == 1
    assert data.sizes == [(6, 8)]
    assert image.shape == (3, 6, 8)
    assert image.dtype == torch.uint8
    assert target["labels"].tolist() == [0, 1]
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert target["boxes"].tolist() == [[1, 1, 4, 3], [2, 0, 3, 6]]
    assert int(target["image_id"]) == 42
    assert target["orig_size"].tolist() == target["size"].tolist() == [6, 8]
    fork, cup = masks_of(target)
    assert fork.sum() == 6
    assert bool(fork[1:3, 1:4].all())
    assert cup.sum() == 6
    assert bool(cup[:, 2].all())


def test_a_class_index_is_the_position_of_its_id_and_the_ids_are_kept(tmp_path: Path) -> None:
    fork, cup = CocoDetection(tmp_path, write(tmp_path, [FORK])).categories
    assert (fork.id, fork.name, fork.isthing, fork.color) == (3, "fork", True, (1, 2, 3))
    assert (cup.id, cup.name, cup.isthing) == (7, "cup", True)


def test_crowds_and_boxes_without_area_are_not_targets(tmp_path: Path) -> None:
    crowd = {**CUP, "id": 3, "iscrowd": 1}
    flat = {**FORK, "id": 4, "bbox": [2, 2, 0, 3]}
    outside = {**FORK, "id": 5, "bbox": [9, 1, 2, 2]}
    _, target = CocoDetection(tmp_path, write(tmp_path, [crowd, flat, FORK, outside]), masks=True)[0]
    assert target["boxes"].tolist() == [[1, 1, 4, 3]]
    assert len(target["labels"]) == len(masks_of(target)) == 1


def test_a_box_is_clipped_to_its_picture(tmp_path: Path) -> None:
    _, target = CocoDetection(tmp_path, write(tmp_path, [{**FORK, "bbox": [-2, 3, 20, 20]}]))[0]
    assert target["boxes"].tolist() == [[0, 3, 8, 6]]


def test_a_picture_without_objects_has_an_empty_target(tmp_path: Path) -> None:
    _, target = CocoDetection(tmp_path, write(tmp_path, []), masks=True)[0]
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert masks_of(target).shape == (0, 6, 8)


def test_an_object_of_two_polygons_has_one_mask(tmp_path: Path) -> None:
    two = {**FORK, "bbox": [0, 0, 8, 6], "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [5, 3, 8, 3, 8, 6, 5, 6]]}
    _, target = CocoDetection(tmp_path, write(tmp_path, [two]), masks=True)[0]
    assert masks_of(target).shape == (1, 6, 8)
    assert int(masks_of(target).sum()) == 4 + 9


def test_objects_that_overlap_keep_all_their_pixels(tmp_path: Path) -> None:
    _, target = CocoDetection(tmp_path, write(tmp_path, [FORK, CUP, {**FORK, "id": 3}]), masks=True)[0]
    assert target["mask_ids"].dtype == torch.uint8
    assert target["mask_ids"].shape == (3, 6, 8)  # all three share pixels
    assert masks_of(target).sum((1, 2)).tolist() == [6, 6, 6]


def test_pictures_come_in_the_order_of_their_ids(shapes_root: Path) -> None:
    annotations = shapes_root / "annotations" / "instances_val2017.json"
    data = CocoDetection(shapes_root / "val2017", annotations, masks=True)
    ids = [int(data[index][1]["image_id"]) for index in range(len(data))]
    assert ids == sorted(ids)
    for index in range(len(data)):
        _, target = data[index]
        x1, y1, x2, y2 = target["boxes"].unbind(1)
        assert bool((masks_of(target).sum((1, 2)) <= (x2 - x1) * (y2 - y1)).all())


def test_a_missing_annotation_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        CocoDetection(tmp_path, tmp_path / "nowhere.json")


@pytest.mark.parametrize("text", ["not json", "[]", '{"images": []}'])
def test_a_file_that_is_no_annotation_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.json").write_text(text)
    with pytest.raises(ValueError, match=r"odd\.json"):
        CocoDetection(tmp_path, tmp_path / "odd.json")


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json lists no image"):
        CocoDetection(tmp_path, write(tmp_path, [], images=[]))


def test_an_unknown_category_is_named_with_its_annotation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: annotation 1 has category 5"):
        CocoDetection(tmp_path, write(tmp_path, [{**FORK, "category_id": 5}]))


@pytest.mark.parametrize("box", [[1, 1, 3], [1, 1, 3, float("nan")], [1, 1, -3, 2]])
@pytest.mark.parametrize("crowd", [0, 1])
def test_a_malformed_box_is_named_with_its_annotation(tmp_path: Path, box: list[float], crowd: int) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: annotation 1 has bbox \[1, 1, "):
        CocoDetection(tmp_path, write(tmp_path, [{**FORK, "bbox": box, "iscrowd": crowd}]))


def test_an_annotation_without_a_field_is_named(tmp_path: Path) -> None:
    for missing in ("category_id", "image_id", "bbox"):
        entry = {name: value for name, value in FORK.items() if name not in (missing, "segmentation")}
        with pytest.raises(ValueError, match=rf"instances\.json: annotation 1 has no {missing}"):
            CocoDetection(tmp_path, write(tmp_path, [entry]))
    with pytest.raises(ValueError, match=r"instances\.json: annotation number 2 has no image_id"):
        CocoDetection(tmp_path, write(tmp_path, [FORK, {"bbox": [1, 1, 3, 2]}]))


def test_a_missing_segmentation_matters_where_masks_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, [{**FORK, "segmentation": []}])
    assert len(CocoDetection(tmp_path, path)[0][1]["boxes"]) == 1
    with pytest.raises(ValueError, match=r"instances\.json: annotation 1 has no segmentation"):
        CocoDetection(tmp_path, path, masks=True)


def test_a_broken_mask_is_named_with_its_image(tmp_path: Path) -> None:
    past_the_end = {"size": [6, 8], "counts": "PZ1"}
    data = CocoDetection(tmp_path, write(tmp_path, [{**FORK, "segmentation": past_the_end}]), masks=True)
    with pytest.raises(ValueError, match=r"instances\.json: the segmentation of annotation number 1 cannot be used"):
        data[0]


def test_an_annotation_of_no_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"instances\.json: annotation 1 belongs to image 9"):
        CocoDetection(tmp_path, write(tmp_path, [{**FORK, "image_id": 9}]))


def test_a_missing_picture_is_named_with_its_id(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [FORK]))
    (tmp_path / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"image 42 has no file .*a\.png"):
        data[0]


def test_a_broken_picture_is_named_with_its_id(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [FORK]))
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"image 42, .*a\.png, cannot be decoded"):
        data[0]


def test_a_picture_of_another_size_than_annotated_is_refused(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [FORK]))
    Image.new("RGB", (5, 6)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"image 42, .* is 5 x 6 pixels but annotated as 8 x 6"):
        data[0]


def test_a_gray_picture_becomes_three_channels(tmp_path: Path) -> None:
    data = CocoDetection(tmp_path, write(tmp_path, [FORK]))
    Image.new("L", (8, 6), 9).save(tmp_path / "a.png")
    image, _ = data[0]
    assert image.shape == (3, 6, 8)
    assert bool((image == 9).all())
