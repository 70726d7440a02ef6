"""The set criterion: losses of matched and unmatched queries (paper section 3.1 and appendix A.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from model.loss.matcher import HungarianMatcher, Match, matched_pairs
from model.network.box_ops import cxcywh_to_xyxy, giou_loss_xyxy
from model.network.detr import Predictions

# The published coefficients; auxiliary losses ("_0", "_1", ...) take those of the last layer.
LOSS_WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 1.0, "loss_dice": 1.0}

MASKS_AT_ONCE = 8  # masks whose loss is computed together, at the size of their image


class Totals(NamedTuple):
    """What the losses of a batch are divided by, float32 [] each; it follows from the targets alone.

    Losses are sums over queries, divided by totals that may be those of more than one batch: where a batch is learnt
    from in parts, on one process or several, all parts are divided by the same totals.
    """

    boxes: Tensor  # number of targets, of the box and mask losses
    class_weight: Tensor  # the classes' weights summed over all queries, of the class loss


def world_totals(parts: Sequence[Totals]) -> Totals:
    """The totals of all `parts` of all processes, divided by the number of processes, as averaging gradients does.

    With them the losses of a process's parts sum, and the sums of the processes average, to the loss of all parts as
    one batch; so do the gradients. In a group of processes every one of them has to call this.
    """
    totals = torch.stack([torch.stack(part) for part in parts]).sum(0)
    processes = 1
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(totals)
        processes = torch.distributed.get_world_size()
    boxes, class_weight = totals.unbind()
    # Without any target there is nothing to divide. The reference raises its quotient to one, not its sum: where there
    # are fewer targets than processes it would learn less from them than one process does.
    return Totals(boxes.clamp(min=1) / processes, class_weight / processes)


class SetCriterion(nn.Module):
    """Matches predictions to targets, then scores class, box and mask of every query.

    `eos_coef` is the weight of no-object among the classes, of which almost all queries are; `class_weights` are those
    of the real classes, 1 each by default.
    """

    def __init__(
        self,
        num_classes: int,
        matcher: HungarianMatcher,
        eos_coef: float = 0.1,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        class_weight = torch.ones(num_classes + 1)
        if class_weights is not None:
            class_weight[:-1] = torch.tensor(class_weights)
        class_weight[-1] = eos_coef
        self.class_weight: Tensor
        self.register_buffer("class_weight", class_weight, persistent=False)

    def forward(
        self,
        outputs: Predictions,
        targets: list[dict[str, Tensor]],
        padding_mask: Tensor | None = None,
        totals: Totals | None = None,
        match: list[Match] | None = None,
    ) -> dict[str, Tensor]:
        """Every loss, unweighted, by the reference's names; "_k" is that of the k-th decoder layer.

        Targets have `labels` int64 [m], `boxes` float32 [m, 4] cxcywh normalised and, where `outputs` holds
        `pred_masks`, `masks` bool [m, h, w] of the size of their image. With `padding_mask`, bool [B, H, W], the mask
        losses are those of each image alone; without it the padding counts as part of the image, as in the reference.
        `totals` (see `world_totals`) is what losses are divided by, by default that of this batch of every process.
        `match` is the last layer's, where the caller has it already.
        """
        match = self.matcher(outputs, targets) if match is None else match
        totals = self._of_this_batch(outputs, targets) if totals is None else totals
        losses = self._detection_losses(outputs, targets, match, totals)
        losses["class_error"] = class_error(outputs, targets, match)
        if "pred_masks" in outputs:
            losses |= self.mask_losses(outputs, targets, match, padding_mask, totals)
        for k, aux in enumerate(outputs.get("aux_outputs", [])):
            aux_losses = self._detection_losses(aux, targets, self.matcher(aux, targets), totals)
            losses |= {f"{name}_{k}": value for name, value in aux_losses.items()}
        return losses

    def totals(self, targets: list[dict[str, Tensor]], num_queries: int) -> Totals:
        """The totals of one batch of this process, for a network of so many queries; `world_totals` takes them."""
        counts = [len(t["labels"]) for t in targets]
        matched = [min(count, num_queries) for count in counts]
        # Of more objects than queries some have no match, and which is not known here: each counts as their mean.
        objects = [
            self.class_weight[target["labels"]].sum() * (share / max(1, count))
            for target, share, count in zip(targets, matched, counts, strict=True)
        ]
        no_object = len(targets) * num_queries - sum(matched)
        boxes = torch.as_tensor(float(sum(counts)), device=self.class_weight.device)
        return Totals(boxes, torch.stack(objects).sum() + no_object * self.class_weight[-1])

    def _of_this_batch(self, outputs: Predictions, targets: list[dict[str, Tensor]]) -> Totals:
        return world_totals([self.totals(targets, outputs["pred_logits"].shape[1])])

    def _detection_losses(
        self, outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match], totals: Totals
    ) -> dict[str, Tensor]:
        boxes = _of_queries(outputs["pred_boxes"].float(), match)
        wanted = _of_targets(targets, "boxes", match)
        return {
            "loss_ce": self._class_loss(outputs, targets, match) / totals.class_weight,
            "cardinality_error": cardinality_error(outputs, targets),
            "loss_bbox": functional.l1_loss(boxes, wanted, reduction="sum") / totals.boxes,
            "loss_giou": giou_loss_xyxy(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted)) / totals.boxes,
        }

    def _class_loss(self, outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match]) -> Tensor:
        logits = outputs["pred_logits"].float()  # (B, Q, classes + 1)
        labels = torch.full(logits.shape[:2], self.num_classes, dtype=torch.int64, device=logits.device)
        labels[matched_pairs(match).unbind(1)] = _of_targets(targets, "labels", match)
        return functional.cross_entropy(logits.transpose(1, 2), labels, self.class_weight, reduction="sum")

    def mask_losses(
        self,
        outputs: Predictions,
        targets: list[dict[str, Tensor]],
        match: list[Match],
        padding_mask: Tensor | None = None,
        totals: Totals | None = None,
    ) -> dict[str, Tensor]:
        """Focal (Lin et al., 2017) and dice (Milletari et al., 2016) loss of the matched queries' masks.

        `mask_index` must hold every matched pair; pairs that are not matched are ignored. Other arguments as above.
        """
        totals = self._of_this_batch(outputs, targets) if totals is None else totals
        losses = [
            # Only logits, at the network's stride, and bits are kept for the gradient. Their values at the size of the
            # image, of which the losses would keep a dozen arrays, are computed again, a few masks at a time.
            checkpoint(_pixel_losses, cells, wanted, use_reentrant=False, preserve_rng_state=False)
            for cells, wanted in _masks_at_once(outputs, targets, match, padding_mask)
        ]
        focal, dice = (torch.stack(losses).sum(0) / totals.boxes).unbind()
        return {"loss_mask": focal, "loss_dice": dice}


def weighted_sum(losses: dict[str, Tensor], weights: Mapping[str, float] = LOSS_WEIGHTS) -> Tensor:
    """The loss to minimise: every loss by its coefficient, published ones by default; what is no loss is left out."""
    return torch.stack(
        [
            weights[name.rstrip("0123456789").rstrip("_")] * value
            for name, value in losses.items()
            if name.startswith("loss_")
        ]
    ).sum()


def focal_loss(logits: Tensor, wanted: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Mean over pixels, [M, pixels] each, to [M]."""
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    probability = logits.sigmoid()
    miss = probability * (1 - wanted) + (1 - probability) * wanted
    balance = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (balance * cross_entropy * miss**gamma).mean(1)


def dice_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """One minus the (smoothed) dice coefficient over all pixels, [M, pixels] each, to [M]."""
    probability = logits.sigmoid()
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


def _masks_at_once(
    outputs: Predictions, targets: list[dict[str, Tensor]], match: list[Match], padding_mask: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits float32 [n, h, w] and wanted masks bool [n, H, W] of the matched pairs, a few of one image at a time.

    Of an image without a match come none, n = 0, so that the losses of any batch depend on its logits.
    """
    rows = _rows(outputs["mask_index"], matched_pairs(match), outputs["pred_logits"].shape[:2])
    of_image = outputs["pred_masks"][rows].float().split([len(query) for query, _ in match])
    canvas = _canvas(targets) if padding_mask is None else padding_mask.shape[-2:]
    for cells, t, (_, target) in zip(of_image, targets, match, strict=True):
        wanted = t["masks"][target]
        if padding_mask is None:
            wanted = _padded(wanted, canvas)
        else:
            cells = _cropped(cells, wanted.shape[-2:], canvas)
        yield from zip(cells.split(MASKS_AT_ONCE), wanted.split(MASKS_AT_ONCE), strict=True)


def _canvas(targets: list[dict[str, Tensor]]) -> torch.Size:
    heights, widths = zip(*[t["masks"].shape[-2:] for t in targets], strict=True)
    return torch.Size((max(heights), max(widths)))


def _cropped(cells: Tensor, size: torch.Size, canvas: torch.Size) -> Tensor:
    """The part of mask logits [n, h, w] that is inside an image of `size` (pixels) at the corner of `canvas`.

    Masks are cropped before they are resized, as they are when they are served: a cell outside would shift the edge.
    """
    rows, cols = (-(-side * count // whole) for side, count, whole in zip(size, cells.shape[-2:], canvas, strict=True))
    return cells[:, :rows, :cols]


def _padded(masks: Tensor, canvas: torch.Size) -> Tensor:
    height, width = masks.shape[-2:]
    return functional.pad(masks, (0, canvas[1] - width, 0, canvas[0] - height))


def _pixel_losses(cells: Tensor, wanted: Tensor) -> Tensor:
    """Focal and dice loss, float32 [2], of logits [n, h, w] at the size of the wanted masks, bool [n, H, W]."""
    pixels = functional.interpolate(cells.unsqueeze(1), size=wanted.shape[-2:], mode="bilinear").flatten(1)
    wanted = wanted.flatten(1).to(pixels)
    return torch.stack((focal_loss(pixels, wanted).sum(), dice_loss(pixels, wanted).sum()))
