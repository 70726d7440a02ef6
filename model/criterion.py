"""The set criterion: losses of matched and unmatched queries (paper section 3.1 and appendix A.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.box_ops import cxcywh_to_xyxy, giou_loss_xyxy
from model.detr import Predictions
from model.matcher import HungarianMatcher, Match, matched_pairs

# The published coefficients; auxiliary losses ("_0", "_1", ...) take those of the last layer.
LOSS_WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 1.0, "loss_dice": 1.0}


class SetCriterion(nn.Module):
    """Matches predictions to targets, then scores class, box and mask of every query.

    `eos_coef` is the weight of no-object among the classes, of which almost all queries are.
    """

    def __init__(self, num_classes: int, matcher: HungarianMatcher, eos_coef: float = 0.1) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        class_weight = torch.ones(num_classes + 1)
        class_weight[-1] = eos_coef
        self.class_weight: Tensor
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(
        self, outputs: Predictions, targets: list[dict[str, Tensor]], padding_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Every loss, unweighted, by the reference's names; "_k" is that of the k-th decoder layer.

        Targets have `labels` int64 [m], `boxes` float32 [m, 4] cxcywh normalised and, where `outputs` holds
        `pred_masks`, `masks` bool [m, h, w]. With `padding_mask`, bool [B, H, W], the mask losses are those of each
        image alone; without it the padding counts as part of the image, as in the reference.
        """
        match = self.matcher(outputs, targets)
        num_boxes = self._num_boxes(targets, outputs["pred_logits"].device)
        losses = self._detection_losses(outputs, targets, match, num_boxes)
        losses["class_error"] = class_error(outputs, targets, match)
        if "pred_masks" in outputs:
            losses |= self.mask_losses(outputs, targets, match, padding_mask)
        for k, aux in enumerate(outputs.get("aux_outputs", [])):
            aux_losses = self._detection_losses(aux, targets, self.matcher(aux, targets), num_boxes)
            losses |= {f"{name}_{k}": value for name, value in aux_losses.items()}
        return losses

    def _detection_losses(
        self, outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match], num_boxes: Tensor
    ) -> dict[str, Tensor]:
        boxes = _of_queries(outputs["pred_boxes"].float(), match)
        wanted = _of_targets(targets, "boxes", match)
        return {
            "loss_ce": self._class_loss(outputs, targets, match),
            "cardinality_error": cardinality_error(outputs, targets),
            "loss_bbox": functional.l1_loss(boxes, wanted, reduction="sum") / num_boxes,
            "loss_giou": giou_loss_xyxy(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted)) / num_boxes,
        }

    def _class_loss(self, outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match]) -> Tensor:
        logits = outputs["pred_logits"].float()  # (B, Q, classes + 1)
        labels = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        labels[matched_pairs(match).unbind(1)] = _of_targets(targets, "labels", match)
        return functional.cross_entropy(logits.transpose(1, 2), labels, self.class_weight)

    def mask_losses(
        self,
        outputs: Predictions,
        targets: list[dict[str, Tensor]],
        match: list[Match],
        padding_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Focal (Lin et al., 2017) and dice (Milletari et al., 2016) loss of the matched queries' masks.

        `mask_index` must hold every matched pair; pairs that are not matched are ignored.
        """
        pairs = matched_pairs(match)
        image = pairs[:, 0]
        rows = _rows(outputs["mask_index"], pairs, outputs["pred_logits"].shape[:2])
        masks = outputs["pred_masks"][rows].float()
        if padding_mask is None:
            height, width = _canvas(targets)
            pixels = functional.interpolate(masks.unsqueeze(1), size=(height, width), mode="bilinear").squeeze(1)
            inside = torch.ones_like(pixels)
        else:
            height, width = padding_mask.shape[-2:]
            pixels = _resized_alone(masks, image, padding_mask)
            inside = (~padding_mask[image]).to(pixels)
        wanted = _padded_masks(targets, match, height, width).to(pixels).flatten(1)
        logits, inside = pixels.flatten(1), inside.flatten(1)  # (M, H * W)
        num_boxes = self._num_boxes(targets, logits.device)
        return {
            "loss_mask": focal_loss(logits, wanted, inside).sum() / num_boxes,
            "loss_dice": dice_loss(logits, wanted, inside).sum() / num_boxes,
        }

    @staticmethod
    def _num_boxes(targets: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Targets a process, averaged over all processes, so that the gradients of a world are those of one batch."""
        count = torch.as_tensor(float(sum(len(t["labels"]) for t in targets)), device=device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count)
            count /= torch.distributed.get_world_size()
        return count.clamp(min=1)


def weighted_sum(losses: dict[str, Tensor]) -> Tensor:
    """The loss to minimise: every loss by its published coefficient; figures that are no losses are left out."""
    return torch.stack(
        [
            LOSS_WEIGHTS[name.rstrip("0123456789").rstrip("_")] * value
            for name, value in losses.items()
            if name.startswith("loss_")
        ]
    ).sum()


def focal_loss(logits: Tensor, wanted: Tensor, inside: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean over the pixels inside, [M, pixels] each, to [M]."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    miss = probability * (1 - wanted) + (1 - probability) * wanted
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (balance * cross_entropy * miss**gamma * inside).sum(1) / inside.sum(1)


def dice_loss(logits: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """One minus the (smoothed) dice coefficient over the pixels inside, [M, pixels] each, to [M]."""
    probability = logits.sigmoid() * inside
    return 1 - (2 * (probability * wanted).sum(1) + 1) / (probability.sum(1) + wanted.sum(1) + 1)


@torch.no_grad()
def class_error(outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match]) -> Tensor:
    """Percent of the matched queries whose most probable class is wrong."""
    labels = _of_targets(targets, "labels", match)
    if not len(labels):
        return outputs["pred_logits"].new_zeros(())
    right = _of_queries(outputs["pred_logits"], match).argmax(-1) == labels
    return 100 - 100 * right.float().mean()


@torch.no_grad()
def cardinality_error(outputs: Predictions, targets: list[dict[str, Tensor]]) -> Tensor:
    """Mean absolute error in the number of objects found."""
    logits = outputs["pred_logits"]
    found = (logits.argmax(-1) != logits.shape[-1] - 1).sum(1)
    count = torch.as_tensor([len(t["labels"]) for t in targets], device=logits.device)
    return (found - count).abs().float().mean()


def _of_queries(values: Tensor, match: list[Match]) -> Tensor:
    return values[matched_pairs(match).unbind(1)]


def _of_targets(targets: list[dict[str, Tensor]], key: str, match: list[Match]) -> Tensor:
    return torch.cat([t[key][target] for t, (_, target) in zip(targets, match, strict=True)])


def _rows(mask_index: Tensor, pairs: Tensor, shape: torch.Size) -> Tensor:
    """Where in `mask_index` [K, 2] each of the (batch, query) `pairs` [M, 2] is; ValueError where one has no mask."""
    row = torch.full(tuple(shape), -1, dtype=torch.int64, device=mask_index.device)
    row[mask_index.unbind(1)] = torch.arange(len(mask_index), device=mask_index.device)
    rows = row[pairs.unbind(1)]
    if bool((rows < 0).any()):
        raise ValueError("a matched query has no mask: mask_index must hold every matched pair")
    return rows


def _canvas(targets: list[dict[str, Tensor]]) -> tuple[int, int]:
    shapes = [t["masks"].shape[-2:] for t in targets]
    return max(h for h, _ in shapes), max(w for _, w in shapes)


def _resized_alone(masks: Tensor, image: Tensor, padding_mask: Tensor) -> Tensor:
    """Mask logits [M, h, w] at the pixels of the canvas, float [M, H, W], zero on padding.

    Each is cropped to its image before it is resized, as it is when it is served: a cell outside would shift the edge.
    `image` is int64 [M], ascending.
    """
    height, width = padding_mask.shape[-2:]
    rows, cols = masks.shape[-2:]
    inside = ~padding_mask
    sizes = torch.stack((inside.any(2).sum(1), inside.any(1).sum(1)), dim=1).tolist()
    pixels = []
    for i, (h, w) in enumerate(sizes):
        cells = masks[image == i, None, : -(-h * rows // height), : -(-w * cols // width)]
        resized = functional.interpolate(cells, size=(h, w), mode="bilinear").squeeze(1)
        pixels.append(functional.pad(resized, (0, width - w, 0, height - h)))
    return torch.cat(pixels)


def _padded_masks(targets: list[dict[str, Tensor]], match: list[Match], height: int, width: int) -> Tensor:
    masks = []
    for t, (_, target) in zip(targets, match, strict=True):
        h, w = t["masks"].shape[-2:]
        masks.append(functional.pad(t["masks"][target], (0, width - w, 0, height - h)))
    return torch.cat(masks)
