"""A data set is found by its folder, its kind and its split."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.data.coco import CocoDetection
from model.data.coco_panoptic import CocoPanoptic
from model.data.folders import DATASET_KINDS, instances_file, open_dataset, panoptic_file
from model.data.shapes.command import CATEGORIES

THINGS = tuple(category for category in CATEGORIES if category.isthing)


@pytest.mark.parametrize("kind", DATASET_KINDS)
@pytest.mark.parametrize(("split", "count"), [("train", 6), ("val", 4)])
def test_every_kind_of_folder_opens(tiny_shapes: Path, kind: str, split: str, count: int) -> None:
    data = open_dataset(kind, tiny_shapes, split, masks=False)
    assert isinstance(data, CocoDetection if kind == "coco" else CocoPanoptic)
    assert len(data) == count
    assert data.categories == (THINGS if kind == "coco" else CATEGORIES)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
@pytest.mark.parametrize("kind", DATASET_KINDS)
def test_masks_are_read_if_they_are_asked_for(tiny_shapes: Path, kind: str) -> None:
    data = open_dataset(kind, tiny_shapes, "train", masks=True)
    plain = open_dataset(kind, tiny_shapes, "train", masks=False)
    image, target = data[0]
    assert target["mask_ids"].shape[1:] == image.shape[1:]
    assert "mask_ids" not in plain[0][1]
    assert torch.equal(target["labels"], plain[0][1]["labels"])


def test_an_unknown_kind_is_refused_by_name(tiny_shapes: Path) -> None:
    with pytest.raises(ValueError, match="data is 'voc'; it must be one of shapes, coco, coco-panoptic"):
        open_dataset("voc", tiny_shapes, "train", masks=False)


@pytest.mark.parametrize("kind", DATASET_KINDS)
def test_a_missing_folder_or_split_is_named(tiny_shapes: Path, tmp_path: Path, kind: str) -> None:
    for root, split in ((tmp_path, "train"), (tiny_shapes, "test")):
        file = instances_file(root, split) if kind == "coco" else panoptic_file(root, split)
        with pytest.raises(FileNotFoundError) as raised:
            open_dataset(kind, root, split, masks=False)
        assert str(raised.value) == f"there is no annotation file {file}"


def test_files_lie_where_coco_keeps_them() -> None:
    assert instances_file(Path("coco"), "val") == Path("coco/annotations/instances_val2017.json")
    assert panoptic_file(Path("coco"), "train") == Path("coco/annotations/panoptic_train2017.json")
