"""An evaluator for a split of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from model.data.formats.coco import CocoDetection
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.folders import Split
from model.data.formats.instance_masks import NoMaskError
from model.evaluation.evaluator import Evaluator
from model.evaluation.instance_truth import InstanceTruth
from model.evaluation.panoptic_quality import SegmentAnnotations
from model.runtime.categories import Category


def open_judged(split: Split, *, masks: bool) -> CocoDataset:
    """A data set to evaluate on, with masks where they are asked for and all its objects have one.

    Raises what `Split.open` does.
    """
    try:
        return split.open(masks=masks)
    except NoMaskError:  # of which the evaluator will speak
        return split.open(masks=False)


def open_evaluator(
    split: Split,
    data: CocoDataset,
    *,
    categories: Sequence[Category],
    segment_threshold: float,
    mask_stride: int | None,
    thing_masks: bool = True,
) -> Evaluator:
    """Read what a model is judged by.

    Args:
        split: where they are.
        data: the same, opened.
        categories: the model's, by class index.
        segment_threshold: see `Evaluator`.
        mask_stride: see `Evaluator`; None where only boxes are to be judged.
        thing_masks: whether the masks of things are judged if segments are, which takes longer: the masks of all
            queries are computed.

    Raises:
        ValueError: an annotation file is malformed or lacks a picture of the data, or model and data share no category.
    """
    with_masks = mask_stride is not None
    segments = None
    if isinstance(data, CocoDetection):
        if data.masks or not with_masks:
            things = InstanceTruth.of(data)
        else:
            things = InstanceTruth.read(data.annotations, masks=True, read=split.read())
    else:
        assert isinstance(data, CocoPanoptic)
        file, read = split.instances()
        if read is None:
            things = InstanceTruth.of_segments(data, f"there is no {file.name} with the masks of things")
        else:
            things = InstanceTruth.read(file, masks=with_masks and thing_masks, read=read)
        if with_masks:
            segments = SegmentAnnotations(data)
    return Evaluator(
        data,
        things,
        categories=categories,
        segment_threshold=segment_threshold,
        mask_stride=mask_stride,
        segments=segments,
    )
