"""Answers in the words of other packages, each of which is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import fiftyone
    import supervision

    from detr_client.answers import Answer


def to_coco(answer: Answer, image_id: int) -> list[dict[str, Any]]:
    """COCO results: objects by their boxes [x, y, width, height], segments by their masks.

    Segments have no box, because pycocotools then takes each one's area for its box's.
    """
    entries: list[dict[str, Any]] = []
    for number, found in enumerate(answer):
        x1, y1, x2, y2 = found.box_xyxy
        entry: dict[str, Any] = {"image_id": image_id, "category_id": found.category_id}
        if hasattr(answer, "rle"):
            entry["segmentation"] = answer.rle(number)
        else:
            entry["bbox"] = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
        entries.append({**entry, "score": found.score})
    return entries


def to_supervision(answer: Answer) -> supervision.Detections:
    """What `Answer.to_supervision` says."""
    import supervision

    return supervision.Detections(
        xyxy=answer.boxes_xyxy.astype(np.float32),
        mask=answer.masks.copy() if hasattr(answer, "masks") else None,
        confidence=answer.scores.astype(np.float32),
        class_id=answer.category_ids.astype(int),
        data={"class_name": np.array(answer.labels, dtype=str)},
    )


def to_fiftyone(answer: Answer) -> fiftyone.Detections:
    """What `Answer.to_fiftyone` says."""
    import fiftyone

    detections = []
    for number, found in enumerate(answer):
        x1, y1, x2, y2 = found.box_xyxy
        box = [x1 / answer.width, y1 / answer.height, (x2 - x1) / answer.width, (y2 - y1) / answer.height]
        mask = _cut_out(answer.mask(number), found.box_xyxy) if hasattr(answer, "mask") else None
        detections.append(
            fiftyone.Detection(
                label=found.label,
                bounding_box=box,
                mask=mask,
                confidence=found.score,
                category_id=found.category_id,
            )
        )
    return fiftyone.Detections(detections=detections)


def _cut_out(mask: NDArray[np.bool_], box_xyxy: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """The part of a mask [height, width] within a box around it."""
    x1, y1 = (int(np.floor(side)) for side in box_xyxy[:2])
    x2, y2 = (int(np.ceil(side)) for side in box_xyxy[2:])
    return mask[y1:y2, x1:x2].copy()
