"""The network as an artifact holds it: uint8 pixels in, the outputs of the graph's contract out."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from model.exporting.batch_norm_folding import fold_batch_norm
from model.network.build import detector_of
from model.network.nested_tensor import NestedTensor, normalize
from model.network.segmentation import DETRsegm
from model.network.transformer import MultiheadAttention, projections_of
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.preprocess import IMAGENET_NORMALIZATION, Normalization

INPUTS = ("images", "padding_mask", "mask_threshold")
OUTPUTS = ("pred_logits", "pred_boxes", "pred_masks", "mask_index")


class ServedNetwork(nn.Module):
    """A `DETR` or `DETRsegm` behind the artifact's inputs and outputs, in eval mode; normalisation is inside.

    With `attention` it also gives what the weights of the last layers' attention follow from: the decoder's to the
    image, and the encoder's within the image.
    """

    def __init__(
        self, network: nn.Module, normalization: Normalization = IMAGENET_NORMALIZATION, attention: bool = False
    ) -> None:
        """Wrap a network. Raises ValueError where attention is asked of one that has no encoder layer."""
        super().__init__()
        self.normalization = normalization
        self.network = network.eval()
        self.has_masks = isinstance(network, DETRsegm)
        self.inputs = INPUTS if self.has_masks else INPUTS[:2]
        self.attention = attention_shape(network) if attention else None
        self.outputs = (OUTPUTS if self.has_masks else OUTPUTS[:2]) + (ATTENTION_OUTPUTS if attention else ())

    def forward(self, images: Tensor, padding_mask: Tensor, mask_threshold: Tensor | None = None) -> tuple[Tensor, ...]:
        """images uint8 [B, H, W, 3], padding_mask bool [B, H, W], mask_threshold float32 [B] to `OUTPUTS`."""
        inputs = normalize(images.permute(0, 3, 1, 2), padding_mask, self.normalization)
        if self.attention is None:
            return self._answers(inputs, mask_threshold)
        cross, own = last_attentions(self.network)
        with projections_of(cross) as of_cross, projections_of(own) as of_own:
            answers = self._answers(inputs, mask_threshold)
        return (*answers, *of_cross, *of_own)

    def _answers(self, inputs: NestedTensor, mask_threshold: Tensor | None) -> tuple[Tensor, ...]:
        outputs = self.network(inputs, mask_threshold) if self.has_masks else self.network(inputs)
        return tuple(outputs[name] for name in (OUTPUTS if self.has_masks else OUTPUTS[:2]))

    def folded(self) -> ServedNetwork:
        """A copy with every batch norm folded into its convolution."""
        copied = copy.deepcopy(self)
        fold_batch_norm(detector_of(copied.network).body.body)
        return copied


def last_attentions(network: nn.Module) -> tuple[MultiheadAttention, MultiheadAttention]:
    """The cross-attention of the last decoder layer, and the self-attention of the last encoder layer."""
    transformer = detector_of(network).transformer
    cross, own = transformer.decoder.layers[-1].multihead_attn, transformer.encoder.layers[-1].self_attn
    assert isinstance(cross, MultiheadAttention)
    assert isinstance(own, MultiheadAttention)
    return cross, own


def attention_shape(network: nn.Module) -> AttentionShape:
    """What the attention of a network is made of. Raises ValueError where it has no encoder layer."""
    detector = detector_of(network)
    if not detector.transformer.encoder.layers:
        raise ValueError("there is no attention to export of a network without encoder layers")
    attention = last_attentions(network)[0]
    return AttentionShape(attention.out_proj.in_features, attention.nheads, detector.body.level_strides[-1])
