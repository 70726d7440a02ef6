"""The network as an artifact holds it: uint8 pixels in, the outputs of the graph's contract out."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from model.exporting.batch_norm_folding import fold_batch_norm
from model.network.build import detector_of
from model.network.nested_tensor import normalize
from model.network.segmentation import DETRsegm
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization

INPUTS = ("images", "padding_mask", "mask_threshold")
OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks", "mask_index")


class ServedNetwork(nn.Module):
    """A `DETR` or `DETRsegm` behind the artifact's inputs and outputs, in eval mode; normalisation is inside."""

    def __init__(self, network: nn.Module, normalization: Normalization = IMAGENET_NORMALIZATION) -> None:
        super().__init__()
        self.normalization = normalization
        self.network = network.eval()
        self.has_masks = isinstance(network, DETRsegm)
        self.inputs = INPUTS if self.has_masks else INPUTS[:2]
        self.outputs = OUTPUTS if self.has_masks else OUTPUTS[:2]

    def forward(self, images: Tensor, padding_mask: Tensor, mask_threshold: Tensor | None = None) -> tuple[Tensor, ...]:
        """images uint8 [B, H, W, 3], padding_mask bool [B, H, W], mask_threshold float32 [B] to `OUTPUTS`."""
        inputs = normalize(images.permute(0, 3, 1, 2), padding_mask, self.normalization)
        outputs = self.network(inputs, mask_threshold) if self.has_masks else self.network(inputs)
        return tuple(outputs[name] for name in self.outputs)

    def folded(self) -> ServedNetwork:
        """A copy with every batch norm folded into its convolution."""
        copied = copy.deepcopy(self)
        fold_batch_norm(detector_of(copied.network).body.body)
        return copied
