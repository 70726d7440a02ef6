"""What has to be said beside figures, in sentences: why one is undefined, and what no answer can match."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pycocotools.mask
from pycocotools.cocoeval import Params

from model.data.check import ROUNDING
from model.evaluation.average_precision import NOTHING
from model.evaluation.instance_truth import InstanceTruth

# Word for the objects whose area is in a range of COCO's, and the figures that are of these only.
SIZES = {"small": ("APs", "ARs"), "medium": ("APm", "ARm"), "large": ("APl", "ARl")}
_KINDS = {"PQ_th": "things", "PQ_st": "stuff"}


def why_no_precision(truth: InstanceTruth, images: Sequence[int]) -> list[str]:
    """Why some of COCO's figures over these pictures are undefined, whatever is found in them."""
    entries = [entry for image in images for entry in truth.of_picture(image)]
    where = f"the {len(images)} pictures of {truth.file}"
    if not entries:
        return [f"AP is undefined, because nothing is annotated in {where}: evaluate pictures with annotated objects"]
    areas = [entry["area"] for entry in entries if not entry["iscrowd"]]
    if not areas:
        return [
            f"AP is undefined, because all {len(entries)} annotations of {where} are crowds (iscrowd 1), which are "
            "left out of every figure: set iscrowd to 0 for single objects, which CVAT writes as crowds where they are "
            "masks"
        ]
    ranges = dict(zip(("all", *SIZES), Params("bbox").areaRng, strict=True))
    missing = [size for size in SIZES if not any(ranges[size][0] <= area <= ranges[size][1] for area in areas)]
    if not missing:
        return []
    *figures, last = (name for size in missing for name in SIZES[size])
    return [f"{', '.join(figures)} and {last} are undefined, because no annotated object is {' or '.join(missing)}"]


def out_of_reach(truth: InstanceTruth, images: Sequence[int]) -> list[str]:
    """Which annotations no answer can match: crowds, and what is not in its picture, where all that is served lies."""
    total = crowds = beyond = empty = unmasked = 0
    for image in images:
        for entry in truth.of_picture(image):
            total += 1
            if entry["iscrowd"]:
                crowds += 1
                continue
            outside, area = _outside_and_area(entry["bbox"], truth.size(image))
            empty += area <= 0
            beyond += area > 0 and outside > ROUNDING
            unmasked += truth.has_masks and not pycocotools.mask.area(entry["segmentation"])
    counts = (
        (empty, "without an area in its picture", "without an area in their picture", "missed"),
        (beyond, "reaching outside its picture", "reaching outside their picture", "found in part"),
    )
    said = [
        f"{count} annotated box{'es' if count > 1 else ''} {many if count > 1 else one} can only be {how}"
        for count, one, many, how in counts
        if count
    ]
    if crowds and crowds < total:
        said.append(f"{crowds} of {total} annotations are crowds (iscrowd 1), which count as regions to ignore")
    if unmasked:
        said.append(f"{unmasked} annotated mask{'s' if unmasked > 1 else ''} without a pixel can only be missed")
    return said


def _outside_and_area(box_xywh: Sequence[float], size: tuple[int, int]) -> tuple[float, float]:
    """How many pixels a box reaches outside a picture of some (height, width), and the area that is inside."""
    x, y, width, height = box_xywh
    right, bottom = x + width, y + height
    area = max(0.0, min(right, size[1]) - max(x, 0)) * max(0.0, min(bottom, size[0]) - max(y, 0))
    return max(-x, -y, right - size[1], bottom - size[0]), area


def why_no_quality(figures: Mapping[str, float]) -> list[str]:
    """Why some of the panoptic figures are undefined."""
    missing = [kind for name, kind in _KINDS.items() if figures.get(name) == NOTHING]
    return [f"PQ of {kind} is undefined, because no segment of {kind} is annotated or found" for kind in missing]


def why_no_masks(truth: InstanceTruth) -> list[str]:
    """Why AP of masks, which was asked for, is missing."""
    return [f"AP of masks is left out: {truth.without_masks}"] if truth.without_masks else []
