"""One training step, as a Lightning module: of the detector, of its mask head over the frozen detector, or of both.

As in the paper (section 4.2) masks are usually learnt in a second stage: the detector is trained first, then frozen
while the mask head learns. In either case masks are computed for matched queries only, the only ones with a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from model.data.collate import TrainingBatch
from model.data.evaluation_set import EvaluationBatch
from model.data.formats.mask_layers import masks_of
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import run_torch
from model.loss.criterion import SetCriterion, Totals, weighted_sum, world_totals
from model.loss.matcher import HungarianMatcher, matched_pairs
from model.network.build import detector_of
from model.network.detr import DETR, Predictions
from model.network.nested_tensor import normalize
from model.network.segmentation import DETRsegm
from model.runtime.engines.raw_outputs import NO_MASKS, RawOutputs
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization
from model.training.activation_checkpointing import checkpoint_activations
from model.training.settings.config import TrainConfig
from model.training.start.freezing import DETECTOR, freeze

SETTINGS_KEY = "detr.train"  # of the settings in a file to resume from
FIGURES = ("class_error", "cardinality_error")  # means over the parts of a batch, where losses are sums


class TrainingModule(lightning.LightningModule):
    """Trains a `DETR` (stage detection) or a `DETRsegm` (stages masks and joint) for `steps` optimizer steps.

    Every step sees one batch in parts, whose losses are divided by the totals of the whole batch in all processes: the
    gradients are those of the batch in one piece, whatever the number of parts and of processes. Random numbers are
    drawn from a seed that belongs to the step, so that an interrupted run continues as if it had not been.
    """

    def __init__(
        self,
        network: DETR | DETRsegm,
        num_classes: int,
        config: TrainConfig,
        steps: int,
        mask_threshold: float = NO_MASKS,
        normalization: Normalization = IMAGENET_NORMALIZATION,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        """Take a network to train.

        `mask_threshold` is the probability above which validation computes a mask, `class_weights` what each class
        weighs in its loss, by default 1.
        """
        super().__init__()
        self.automatic_optimization = False  # Lightning's own accumulation averages losses whose divisors differ
        self.network = network.to(memory_format=torch.channels_last)
        matcher = HungarianMatcher(config.cost_class, config.cost_box, config.cost_giou)
        self.criterion = SetCriterion(num_classes, matcher, config.no_object_weight, class_weights)
        self.config = config
        self.steps = steps
        self.mask_threshold = mask_threshold
        self.normalization = normalization
        if config.activation_checkpointing:
            checkpoint_activations(network)
        freeze(network, (*config.freeze, *(DETECTOR if config.stage == "masks" else ())))

    def training_step(self, parts: list[TrainingBatch], batch_index: int) -> None:
        """One optimizer step; every few steps all losses are logged under their names, as means over processes.

        Raises FloatingPointError where a loss is not finite.
        """
        torch.manual_seed(self._step_seed())
        optimizer, schedule = self.optimizers(), self.lr_schedulers()
        sums = self.gradients(parts)
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule.step()  # type: ignore[union-attr]
        if self.global_step % self.config.log_every == 0:
            self._log(sums)

    def gradients(self, parts: Sequence[TrainingBatch]) -> dict[str, Tensor]:
        """Add the gradients of a batch in parts to the parameters', and return its losses and figures, detached."""
        queries = detector_of(self.network).query_embed.num_embeddings
        totals = world_totals([self.criterion.totals(part.targets, queries) for part in parts])
        sums: dict[str, Tensor] = {}
        for i, part in enumerate(parts):
            with nullcontext() if i == len(parts) - 1 else self._unsynchronized():
                losses = self.losses(part, totals)
                loss = weighted_sum(losses, self.config.loss_weights)
                self._refuse_divergence("the loss", loss)
                self.manual_backward(loss)
            for name, value in {"loss": loss, **losses}.items():
                share = value.detach() / (len(parts) if name.startswith(FIGURES) else 1)
                sums[name] = sums[name] + share if name in sums else share
        return sums

    def losses(self, part: TrainingBatch, totals: Totals) -> dict[str, Tensor]:
        """Every loss of a part of a batch, by the criterion's names."""
        inputs = normalize(part.images, part.padding_mask, self.normalization)
        inputs = inputs._replace(tensors=inputs.tensors.contiguous(memory_format=torch.channels_last))
        if not isinstance(self.network, DETRsegm):
            outputs = self._checked(self.network(inputs))
            with self._float32():
                return self.criterion(outputs, part.targets, totals=totals)
        decoded = self.network.detr.decode(inputs)
        outputs = self._checked(self.network.detr.predict(decoded.hs))
        with self._float32():
            match = self.criterion.matcher(outputs, part.targets)
        mask_index = matched_pairs(match)
        masks = self.network.masks(decoded, mask_index).float()
        outputs |= {"pred_masks": masks, "mask_index": mask_index}
        targets = [{**target, "masks": masks_of(target)} for target in part.targets]
        with self._float32():
            if self.config.stage == "masks":
                return self.criterion.mask_losses(outputs, targets, match, part.padding_mask, totals)
            return self.criterion(outputs, targets, part.padding_mask, totals, match)

    # Lightning gives callbacks what this returns.
    def validation_step(  # type: ignore[override]
        self, batch: EvaluationBatch, batch_index: int, dataloader_idx: int = 0
    ) -> RawOutputs:
        """The network's answer as it would be served: float32, images as uint8, masks above the threshold."""
        with self._float32():
            threshold = np.full(len(batch.indices), self.mask_threshold, np.float32)
            return run_torch(ServedNetwork(self.network, self.normalization), batch.batch, threshold)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, which Lightning does not do where the module steps the optimizer itself."""
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters(), self.config.clip)

    def configure_optimizers(self) -> Any:
        """AdamW with its own rate for the backbone, and the schedule of `TrainConfig.lr_factor`."""
        backbone: list[Tensor] = []
        rest: list[Tensor] = []
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                (backbone if "backbone.0" in name else rest).append(parameter)
        groups = [{"params": rest, "lr": self.config.lr}, {"params": backbone, "lr": self.config.lr_backbone}]
        # On a GPU a fused step would also divide by the scale of 16-mixed, and gradients be clipped before that.
        fused = self.device.type == "cpu"
        learning = [g for g in groups if g["params"]]
        optimizer = torch.optim.AdamW(learning, weight_decay=self.config.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.config.lr_factor(step, self.steps))
        return [optimizer], [schedule]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings, so that a run which continues with others is not mistaken for this one."""
        checkpoint[SETTINGS_KEY] = asdict(self.config)

    def _step_seed(self) -> int:
        """The same for a step of a run, resumed or not, and another for every process."""
        return int(np.random.SeedSequence([self.config.seed, self.global_step, self.global_rank]).generate_state(1)[0])

    def _unsynchronized(self) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with the last part."""
        wrapped = self.trainer.strategy.model
        if isinstance(wrapped, torch.nn.parallel.DistributedDataParallel):
            return wrapped.no_sync()
        return nullcontext()

    def _float32(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)

    def _checked(self, outputs: Predictions) -> Predictions:
        """In float32, which matcher and losses are computed in; the matcher could not say what is wrong with NaN."""
        outputs = _float(outputs)
        self._refuse_divergence("the network's answer", outputs["pred_logits"], outputs["pred_boxes"])
        return outputs

    def _refuse_divergence(self, what: str, *values: Tensor) -> None:
        if not all(bool(value.isfinite().all()) for value in values):
            raise FloatingPointError(f"{what} is not finite at step {self.global_step}: lower the learning rate")

    def _log(self, figures: dict[str, Tensor]) -> None:
        """Losses of the last decoder layer, the sum of all, and the rates of the step that was taken."""
        names = [name for name in figures if not name[-1].isdigit()]
        values = torch.stack([figures[name].float() for name in names])
        if self.trainer.world_size > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        rates = {"lr": self.config.lr, "lr_backbone": self.config.lr_backbone}
        factor = self.config.lr_factor(self.global_step - 1, self.steps)
        shown = dict(zip(names, values.tolist(), strict=True)) | {name: rate * factor for name, rate in rates.items()}
        self.log_dict(shown, logger=False)  # for the bar
        # Lightning would write them after callbacks have seen the step, and a file to resume from would miss its line.
        for logger in self.loggers:
            logger.log_metrics(shown | {"epoch": self.current_epoch}, step=self.global_step)


def _float(outputs: Predictions) -> Predictions:
    floats: Predictions = {
        "pred_logits": outputs["pred_logits"].float(),
        "pred_boxes": outputs["pred_boxes"].float(),
        "aux_outputs": [_float(aux) for aux in outputs.get("aux_outputs", [])],
    }
    return floats
