"""The detector: backbone, transformer and heads that predict one set of boxes (paper section 3)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.backbone import Backbone
from model.network.config import ModelConfig
from model.network.nested_tensor import NestedTensor
from model.network.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine
from model.network.transformer import Transformer


class Predictions(TypedDict, total=False):
    """What the network answers, float32, under the names of the artifact's graph.

    pred_logits [B, Q, classes + 1], pred_boxes [B, Q, 4] (cxcywh in [0, 1] of the unpadded image), aux_outputs (one
    Predictions a decoder layer but the last), pred_masks [K, h, w] mask logits of the pairs mask_index [K, 2]
    (batch, query).
    """

    pred_logits: Tensor
    pred_boxes: Tensor
    aux_outputs: list[Predictions]
    pred_masks: Tensor
    mask_index: Tensor


class DecoderOutputs(NamedTuple):
    """The network before its heads: all that boxes and masks are read from."""

    levels: list[NestedTensor]  # backbone features, finest first
    projected: Tensor  # (B, C, h, w) last level at the transformer's width
    memory: Tensor  # (B, C, h, w) encoder output
    hs: Tensor  # (layers, B, Q, C) decoder outputs


class MLP(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        sizes = [input_dim] + [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(sizes))

    def forward(self, x: Tensor) -> Tensor:
        """[..., input_dim] to [..., output_dim]."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x))
        return self.layers[-1](x)


class DETR(nn.Module):
    """Boxes and classes of `num_queries` object queries. Attribute names are the published checkpoints' own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        backbone = Backbone(
            config.backbone,
            config.stages,
            config.dilation,
            config.frozen_batch_norm,
            config.padding == "exact",
        )
        encoding = PositionEmbeddingSine if config.position_embedding == "sine" else PositionEmbeddingLearned
        self.backbone = nn.ModuleList([backbone, encoding(config.hidden_dim // 2)])
        self.input_proj = nn.Conv2d(backbone.num_channels[-1], config.hidden_dim, kernel_size=1)
        self.transformer = Transformer(
            config.hidden_dim,
            config.nheads,
            config.dim_feedforward,
            config.encoder_layers,
            config.decoder_layers,
            config.dropout,
            config.pre_norm,
        )
        self.query_embed = nn.Embedding(config.num_queries, config.hidden_dim)
        self.class_embed = nn.Linear(config.hidden_dim, config.num_classes + 1)
        self.bbox_embed = MLP(config.hidden_dim, config.hidden_dim, 4, num_layers=3)

    @property
    def body(self) -> Backbone:
        """The backbone proper, without the position encoding that shares its list."""
        backbone = self.backbone[0]
        assert isinstance(backbone, Backbone)
        return backbone

    def forward(self, inputs: NestedTensor) -> Predictions:
        """Normalised images [B, 3, H, W] with their padding mask to predictions."""
        return self.predict(self.decode(inputs).hs)

    def decode(self, inputs: NestedTensor) -> DecoderOutputs:
        """Run backbone and transformer."""
        levels = self.body(inputs)
        features, padding_mask = levels[-1]
        projected = self.input_proj(features)
        pos = self.backbone[1](padding_mask)
        hs, memory = self.transformer(projected, padding_mask, pos, self.query_embed.weight)
        return DecoderOutputs(levels, projected, memory, hs)

    def predict(self, hs: Tensor) -> Predictions:
        """Decoder outputs [layers, B, Q, C] through the shared heads; the last layer's is the answer."""
        logits = self.class_embed(hs)
        boxes = self.bbox_embed(hs).sigmoid()
        aux: list[Predictions] = [
            {"pred_logits": layer_logits, "pred_boxes": layer_boxes}
            for layer_logits, layer_boxes in zip(logits[:-1], boxes[:-1], strict=True)
        ]
        return {"pred_logits": logits[-1], "pred_boxes": boxes[-1], "aux_outputs": aux}


def masks_above(pred_logits: Tensor, mask_threshold: Tensor) -> Tensor:
    """The (batch, query) pairs, int64 [K, 2], whose best real class is more probable than their image's threshold.

    pred_logits is float32 [B, Q, classes + 1], mask_threshold float32 [B]: negative takes all, above 1 none.
    """
    best = pred_logits.softmax(-1)[..., :-1].amax(-1)  # (B, Q)
    return torch.nonzero(best > mask_threshold[:, None])
