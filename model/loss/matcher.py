"""The assignment of predictions to targets that the set loss is computed on (paper section 3.1)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from model.network.box_ops import cxcywh_to_xyxy, pairwise_giou_xyxy
from model.network.detr import Predictions

Match = tuple[Tensor, Tensor]


class HungarianMatcher(nn.Module):
    """Finds, for each image, the one-to-one assignment of queries to targets with the lowest total cost.

    Every target gets exactly one query, the other queries none: they are to predict no-object. Where an image has more
    targets than there are queries, every query gets one target and the targets that fit worst none, as in the
    reference. The cost is that of class probability, L1 and generalised IoU, weighted.
    """

    def __init__(self, cost_class: float = 1.0, cost_bbox: float = 5.0, cost_giou: float = 2.0) -> None:
        super().__init__()
        self.cost_class = cost_class
        self.cost_bbox = cost_bbox
        self.cost_giou = cost_giou

    @torch.no_grad()
    def forward(self, outputs: Predictions, targets: list[dict[str, Tensor]]) -> list[Match]:
        """Match `pred_logits` [B, Q, classes + 1] and `pred_boxes` [B, Q, 4] to one target dict an image.

        A target has `labels` int64 [m] and `boxes` float32 [m, 4] (cxcywh, normalised). Returns, an image, the
        matched queries and targets as two int64 [min(m, Q)] of equal order, sorted by query. Raises ValueError where
        a cost is not finite.
        """
        probability = outputs["pred_logits"].float().softmax(-1)
        boxes = outputs["pred_boxes"].float()
        return [
            self._assign(p, b, t["labels"], t["boxes"]) for p, b, t in zip(probability, boxes, targets, strict=True)
        ]

    def _assign(self, probability: Tensor, boxes: Tensor, labels: Tensor, target_boxes: Tensor) -> Match:
        cost = (
            self.cost_class * -probability[:, labels]
            + self.cost_bbox * torch.cdist(boxes, target_boxes, p=1)
            + self.cost_giou * -pairwise_giou_xyxy(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes))
        )  # (Q, m)
        if not bool(cost.isfinite().all()):
            raise ValueError("a prediction or a target is not a finite number: is the training diverging?")
        query, target = linear_sum_assignment(cost.cpu().numpy())
        return torch.as_tensor(query, device=labels.device), torch.as_tensor(target, device=labels.device)


def matched_pairs(match: list[Match]) -> Tensor:
    """The (batch, query) pair of every matched query, image after image: int64 [M, 2]."""
    return torch.cat([torch.stack((torch.full_like(query, i), query), dim=1) for i, (query, _) in enumerate(match)])
