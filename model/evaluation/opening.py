"""An evaluator for a folder laid out as COCO's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from model.data.coco import CocoDetection
from model.data.coco_dataset import CocoDataset
from model.data.folders import instances_file, open_dataset, panoptic_file
from model.data.instance_masks import NoMaskError
from model.evaluation.evaluator import Evaluator
from model.evaluation.instance_truth import InstanceTruth
from model.evaluation.panoptic_quality import SegmentAnnotations
from model.runtime.categories import Category


def open_judged(kind: str, root: Path, split: str, *, masks: bool) -> CocoDataset:
    """A data set to evaluate on, with masks where they are asked for and all its objects have one.

    Raises what `open_dataset` does.
    """
    try:
        return open_dataset(kind, root, split, masks=masks)
    except NoMaskError:  # of which the evaluator will speak
        return open_dataset(kind, root, split, masks=False)


def open_evaluator(
    kind: str,
    root: Path,
    split: str,
    data: CocoDataset,
    *,
    categories: Sequence[Category],
    segment_threshold: float,
    mask_stride: int | None,
    thing_masks: bool = True,
) -> Evaluator:
    """Read what a model is judged by.

    Args:
        kind: one of `folders.DATASET_KINDS`.
        root: the folder.
        split: such as "val".
        data: the same split, opened.
        categories: the model's, by class index.
        segment_threshold: see `Evaluator`.
        mask_stride: see `Evaluator`; None where only boxes are to be judged.
        thing_masks: whether the masks of things are judged if segments are, which takes longer: the masks of all
            queries are computed.

    Raises:
        FileNotFoundError: an annotation file is missing.
        ValueError: one is malformed or lacks a picture of the data, or model and data share no category.
    """
    with_masks = mask_stride is not None
    if isinstance(data, CocoDetection):
        known = data.masks or not with_masks
        things = InstanceTruth.of(data) if known else InstanceTruth.read(data.annotations, masks=True)
        segments = None
    else:
        things = InstanceTruth.read(instances_file(root, split), masks=with_masks and thing_masks)
        segments = SegmentAnnotations(panoptic_file(root, split), data.categories) if with_masks else None
    return Evaluator(
        data,
        things,
        categories=categories,
        segment_threshold=segment_threshold,
        mask_stride=mask_stride,
        segments=segments,
    )
