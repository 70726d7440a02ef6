"""One training step, as a Lightning module: of the detector or, over a frozen detector, of the mask head.

As in the paper (section 4.2) masks are learnt in a second stage: the detector is trained first, then frozen while the
mask head learns from the matched queries only, which are the only ones that have a loss.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import lightning
import torch
from torch import Tensor

from model.build import detector_of
from model.criterion import SetCriterion, weighted_sum
from model.data.collate import TrainingBatch
from model.detr import DETR, Predictions
from model.matcher import HungarianMatcher, matched_pairs
from model.nested_tensor import NestedTensor, normalize
from model.segmentation import DETRsegm

Stage = Literal["detection", "masks"]
SETTINGS_KEY = "detr.train"  # of the settings in a file to resume from


@dataclass(frozen=True)
class TrainConfig:
    """How weights are learnt. The defaults are the demo's.

    The learning rate rises linearly over `warmup_steps`, stays, and falls linearly to zero over the last
    `decay_fraction` of the steps. `clip` bounds the gradient's norm (0.1 as published).
    """

    stage: Stage = "detection"
    steps: int = 8_000
    batch_size: int = 16
    lr: float = 3e-4
    lr_backbone: float = 3e-4
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    decay_fraction: float = 0.4
    clip: float = 0.1
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1, not {self.steps}")
        for name in ("lr", "lr_backbone", "weight_decay"):  # the optimizer does not check those of its groups
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"--{name.replace('_', '-')} must be 0 or more, not {getattr(self, name)}")

    def lr_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step, from 0."""
        rising = (step + 1) / max(1, self.warmup_steps)
        falling = (self.steps - step) / max(1.0, self.decay_fraction * self.steps)
        return max(0.0, min(1.0, rising, falling))


class TrainingModule(lightning.LightningModule):
    """One training step of a `DETR` (stage detection) or of a `DETRsegm`'s mask head (stage masks)."""

    def __init__(self, network: DETR | DETRsegm, num_classes: int, config: TrainConfig) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.criterion = SetCriterion(num_classes, HungarianMatcher())
        self.config = config
        if config.stage == "masks":
            detector_of(network).requires_grad_(False)

    def training_step(self, batch: TrainingBatch, batch_index: int) -> Tensor:
        """The weighted sum of all losses; each is logged under its own name.

        Raises FloatingPointError where it is not finite.
        """
        inputs = normalize(batch.images, batch.padding_mask)
        inputs = inputs._replace(tensors=inputs.tensors.contiguous(memory_format=torch.channels_last))
        if self.config.stage == "masks":
            losses = self._mask_losses(inputs, batch)
        else:
            outputs = _float(self.network(inputs))
            # The matcher could not say what is wrong with these.
            self._refuse_divergence("the network's answer", outputs["pred_logits"], outputs["pred_boxes"])
            with torch.autocast(self.device.type, enabled=False):
                losses = self.criterion(outputs, batch.targets)
        loss = weighted_sum(losses)
        self._refuse_divergence("the loss", loss)
        last_layer = {name: value for name, value in losses.items() if not name[-1].isdigit()}
        self.log("loss", loss, prog_bar=True)
        self.log_dict(last_layer)
        return loss

    def _refuse_divergence(self, what: str, *values: Tensor) -> None:
        if not all(bool(value.isfinite().all()) for value in values):
            raise FloatingPointError(f"{what} is not finite at step {self.global_step}: lower the learning rate")

    def _mask_losses(self, inputs: NestedTensor, batch: TrainingBatch) -> dict[str, Tensor]:
        """Only matched queries have a mask loss, so only their masks are computed."""
        assert isinstance(self.network, DETRsegm)
        detr = self.network.detr.eval()  # frozen: neither dropout nor batch statistics may move
        with torch.no_grad():
            decoded = detr.decode(inputs)
            outputs = _float(detr.predict(decoded.hs))
        with torch.autocast(self.device.type, enabled=False):
            match = self.criterion.matcher(outputs, batch.targets)
        mask_index = matched_pairs(match)
        masks = self.network.masks(decoded, mask_index)
        with torch.autocast(self.device.type, enabled=False):
            outputs |= {"pred_masks": masks.float(), "mask_index": mask_index}
            return self.criterion.mask_losses(outputs, batch.targets, match, batch.padding_mask)

    def configure_optimizers(self) -> Any:
        """AdamW with its own rate for the backbone, and the schedule of `TrainConfig.lr_factor`."""
        backbone: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                (backbone if "backbone.0" in name else rest).append(parameter)
        groups = [{"params": rest, "lr": self.config.lr}, {"params": backbone, "lr": self.config.lr_backbone}]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=self.config.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.config.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings, so that a run which continues with others is not mistaken for this one."""
        checkpoint[SETTINGS_KEY] = asdict(self.config)


def _float(outputs: Predictions) -> Predictions:
    """Losses and matching are computed in float32, whatever the network ran in."""
    floats: Predictions = {
        "pred_logits": outputs["pred_logits"].float(),
        "pred_boxes": outputs["pred_boxes"].float(),
        "aux_outputs": [_float(aux) for aux in outputs.get("aux_outputs", [])],
    }
    return floats
