"""Box arithmetic in plain Python, one box at a time: what the tensor code is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    """(centre x, centre y, width, height) to (x1, y1, x2, y2)."""
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def giou_xyxy(a: Sequence[float], b: Sequence[float]) -> float:
    """Generalised IoU of two boxes (x1, y1, x2, y2), one of them with an area."""
    overlap = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union - (hull - union) / hull


def random_boxes_cxcywh(count: int, generator: torch.Generator) -> Tensor:
    """float32 [count, 4], each inside the unit square and with an area."""
    size = 0.05 + 0.4 * torch.rand(count, 2, generator=generator)
    centre = size / 2 + (1 - size) * torch.rand(count, 2, generator=generator)
    return torch.cat((centre, size), dim=1)
