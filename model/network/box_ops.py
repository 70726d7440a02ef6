"""Box formats and generalised IoU, over torchvision's operators: one place that checks what they take."""

from __future__ import annotations

from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """[n, 4] (centre x, centre y, width, height) to (x1, y1, x2, y2), in the same units."""
    return box_convert(boxes, "cxcywh", "xyxy")


def pairwise_giou_xyxy(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., 2019) of boxes [n, 4] with [m, 4], both xyxy: float [n, m] in (-1, 1].

    Raises ValueError on a box whose corners are swapped or not numbers, which would give a silent nonsense cost.
    """
    for boxes in (boxes1, boxes2):
        if not bool((boxes[:, 2:] >= boxes[:, :2]).all()):
            raise ValueError("boxes must have x2 >= x1 and y2 >= y1, and be finite: is the training diverging?")
    return generalized_box_iou(boxes1, boxes2)


def giou_loss_xyxy(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Sum of 1 - generalised IoU over boxes [n, 4] and their counterparts [n, 4], both xyxy; zero for none."""
    return generalized_box_iou_loss(boxes1, boxes2, reduction="sum")
