"""Why a figure of a whole set is undefined, in sentences for people who wonder about a dash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pycocotools.cocoeval import Params

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


def why_no_quality(figures: Mapping[str, float]) -> list[str]:
    """Why some of the panoptic figures are undefined."""
    missing = [kind for name, kind in _KINDS.items() if figures.get(name) == NOTHING]
    return [f"PQ of {kind} is undefined, because no segment of {kind} is annotated or found" for kind in missing]


def why_no_masks(truth: InstanceTruth) -> list[str]:
    """Why AP of masks, which was asked for, is missing."""
    return [f"AP of masks is left out: {truth.without_masks}"] if truth.without_masks else []
