"""Where COCO keeps its files, so that a command needs one folder's name only."""

from __future__ import annotations

from pathlib import Path

from model.data.coco import CocoDetection
from model.data.coco_dataset import CocoDataset
from model.data.coco_panoptic import CocoPanoptic

DATASET_KINDS = ("shapes", "coco", "coco-panoptic")
DATASET_KINDS_IN_WORDS = "things (coco), or things and stuff (coco-panoptic, and shapes, which `detr shapes` writes)"


def instances_file(root: Path, split: str) -> Path:
    """Boxes and masks of things."""
    return root / "annotations" / f"instances_{split}2017.json"


def panoptic_file(root: Path, split: str) -> Path:
    """Segments of things and stuff; their PNGs lie in the folder beside it that has its name."""
    return root / "annotations" / f"panoptic_{split}2017.json"


def open_dataset(kind: str, root: Path, split: str, *, masks: bool) -> CocoDataset:
    """The data set of a folder laid out as COCO's: `{split}2017/` and `annotations/`.

    Kind `coco` reads instances (things), `coco-panoptic` and `shapes` (what `detr shapes` writes) things and stuff.
    Raises ValueError for another kind, and what the data sets raise.
    """
    if kind not in DATASET_KINDS:
        raise ValueError(f"data is {kind!r}; it must be one of {', '.join(DATASET_KINDS)}")
    images = root / f"{split}2017"
    if kind == "coco":
        file = instances_file(root, split)
        return CocoDetection(images, file, masks=masks)
    file = panoptic_file(root, split)
    return CocoPanoptic(images, file, masks=masks)
