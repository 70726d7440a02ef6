"""A checkpoint in eager PyTorch, computed as the published implementation does.

Padding leaks as published, no batch norm is folded, and the mask head runs all of its convolutions for all queries.
What is before and after the network is the service's own, so that the network and the server are all that differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from model.checkpoint.reading import read_checkpoint
from model.export import metadata_of
from model.network.build import build_model
from model.network.detr import DecoderOutputs, masks_above
from model.network.nested_tensor import normalize, pad_images
from model.network.segmentation import DETRsegm, MaskHeadSmallConv
from model.runtime.decode import ImageLimits
from model.runtime.engines.raw_outputs import ImageOutputs
from service.images.answers import TASKS, TaskName
from service.images.prepare import ImageRules, prepare
from service.images.task import Prepared
from service.process.trace import Trace

LIMITS = ImageLimits(max_pixels=50_000_000, max_side=16_384)


class ReferenceHead(MaskHeadSmallConv):
    """The published mask head (facebookresearch/detr, models/segmentation.py), with the same weights."""

    def forward(
        self,
        features: Tensor,
        attention: Tensor,
        pyramid: list[Tensor],
        image: Tensor,
        valid: list[Tensor] | None,
    ) -> Tensor:
        """See `MaskHeadSmallConv`; `valid` is not looked at."""
        x = self._plain_block(2, self._plain_block(1, torch.cat([features[image], attention], 1)))
        for i, level in enumerate(pyramid, start=1):
            fine = getattr(self, f"adapter{i}")(level)[image]
            x = self._plain_block(2 + i, fine + functional.interpolate(x, size=fine.shape[-2:], mode="nearest"))
        masks: Tensor = self.out_lay(x).squeeze(1)
        return masks

    def _plain_block(self, i: int, x: Tensor) -> Tensor:
        return functional.relu(getattr(self, f"gn{i}")(getattr(self, f"lay{i}")(x)))


class EagerModel:
    """Answers as the service's route of the same name does."""

    def __init__(self, checkpoint: Path, kind: TaskName, threshold: float | None) -> None:
        read = read_checkpoint(checkpoint)
        config = replace(read.config, padding="published")
        network = build_model(config)
        network.load_state_dict(read.state_dict)
        self._metadata = metadata_of(read, config, network, checkpoint.stem)
        self._segm = network.eval() if isinstance(network, DETRsegm) and kind == "segment" else None
        self._detr = network.detr.eval() if isinstance(network, DETRsegm) else network.eval()
        if kind == "segment":
            assert self._segm is not None
            self._segm.mask_head.__class__ = ReferenceHead
        self._task = TASKS[kind].of(self._metadata, threshold)

    def answer(self, body: bytes) -> bytes:
        """One encoded image to JSON."""
        prepared = self.prepare(body)
        (outputs,) = self.infer([prepared])
        return self.finish(prepared, outputs)

    def prepare(self, body: bytes) -> Prepared:
        """Decode and resize."""
        return prepare(body, "image/jpeg", ImageRules(LIMITS, self._metadata.resize), Trace())

    def infer(self, batch: Sequence[Prepared]) -> list[ImageOutputs]:
        """Run a batch on the smallest canvas that holds it."""
        images = [torch.from_numpy(prepared.resized.copy()).permute(2, 0, 1) for prepared in batch]
        with torch.inference_mode():
            decoded = self._detr.decode(normalize(*pad_images(images, multiple=1)))
            found = self._detr.predict(decoded.hs)
            return [self._image(decoded, found["pred_logits"], found["pred_boxes"], i) for i in range(len(batch))]

    def finish(self, prepared: Prepared, outputs: ImageOutputs) -> bytes:
        """Make the answer."""
        return self._task.answer(self._metadata, prepared, outputs, Trace()).body

    def _image(self, decoded: DecoderOutputs, logits: Tensor, boxes: Tensor, image: int) -> ImageOutputs:
        """One image's outputs, with masks of all queries, of which those above the threshold are handed on.

        Image by image, because the masks of eight at once take more memory than most machines have; a CPU is no slower.
        """
        of_image = logits[image].numpy(), boxes[image].numpy()
        if self._segm is None:
            return ImageOutputs(*of_image, None, None)
        queries = torch.arange(logits.shape[1])
        masks = self._segm.masks(decoded, torch.stack([torch.full_like(queries, image), queries], dim=1))  # (Q, h, w)
        kept = masks_above(logits[image : image + 1], torch.tensor([self._task.mask_threshold]))[:, 1]
        return ImageOutputs(*of_image, masks[kept].numpy(), kept.numpy())
