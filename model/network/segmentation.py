"""The mask head: attention maps of the kept queries, refined over the backbone's pyramid (paper section 4.2).

Masks cost only what is asked: everything that depends on the image alone runs once an image, everything else once for
each (image, query) pair in `mask_index`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.config import ModelConfig
from model.network.detr import DETR, DecoderOutputs, Predictions, masks_above
from model.network.nested_tensor import NestedTensor


class DETRsegm(nn.Module):
    """A DETR with masks. Attribute names are the published checkpoints' own."""

    def __init__(self, detr: DETR, config: ModelConfig) -> None:
        super().__init__()
        self.detr = detr
        self.exact = config.padding == "exact"
        self.bbox_attention = MHAttentionMap(config.hidden_dim, config.nheads)
        pyramid = detr.body.num_channels[-2::-1]
        self.mask_head = MaskHeadSmallConv(config.hidden_dim, config.nheads, pyramid)

    def forward(self, inputs: NestedTensor, mask_threshold: Tensor | None = None) -> Predictions:
        """Boxes, and mask logits of the queries above `mask_threshold`, float32 [B] (None: of all queries)."""
        decoded = self.detr.decode(inputs)
        predictions = self.detr.predict(decoded.hs)
        logits = predictions["pred_logits"]
        if mask_threshold is None:
            mask_threshold = logits.new_full((logits.shape[0],), -1.0)
        mask_index = masks_above(logits, mask_threshold)
        return {**predictions, "pred_masks": self.masks(decoded, mask_index), "mask_index": mask_index}

    def masks(self, decoded: DecoderOutputs, mask_index: Tensor) -> Tensor:
        """Mask logits [K, h, w] at the finest level's stride, of the pairs `mask_index`, int64 [K, 2]."""
        image = mask_index[:, 0]
        queries = decoded.hs[-1][image, mask_index[:, 1]]  # (K, C)
        attention = self.bbox_attention(queries, decoded.memory, decoded.levels[-1].padding_mask, image)
        pyramid = [level.tensors for level in decoded.levels[-2::-1]]
        valid = None
        if self.exact:
            valid = [(~level.padding_mask[:, None]).to(attention.dtype) for level in reversed(decoded.levels)]
        return self.mask_head(decoded.projected, attention, pyramid, image, valid)


class MHAttentionMap(nn.Module):
    """How much each head of each kept query attends to each cell: a softmax over heads and cells together."""

    def __init__(self, hidden_dim: int, nheads: int) -> None:
        super().__init__()
        self.nheads = nheads
        self.scale = (hidden_dim / nheads) ** -0.5
        self.q_linear = nn.Linear(hidden_dim, hidden_dim)
        self.k_linear = nn.Linear(hidden_dim, hidden_dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, memory: Tensor, padding_mask: Tensor, image: Tensor) -> Tensor:
        """queries [K, C], memory [B, C, h, w], padding_mask [B, h, w], image int64 [K] to [K, heads, h, w]."""
        height, width = memory.shape[-2:]
        q = self.q_linear(queries).unflatten(1, (self.nheads, -1)) * self.scale  # (K, heads, d)
        k = functional.linear(memory.flatten(2).transpose(1, 2), self.k_linear.weight, self.k_linear.bias)
        k = k.unflatten(2, (self.nheads, -1)).permute(0, 2, 3, 1)  # (B, heads, d, h * w)
        weights = torch.matmul(q.unsqueeze(2), k[image]).squeeze(2)  # (K, heads, h * w)
        weights = weights.masked_fill(padding_mask.flatten(1)[image].unsqueeze(1), float("-inf"))
        return weights.flatten(1).softmax(-1).unflatten(1, (self.nheads, height, width))


class MaskHeadSmallConv(nn.Module):
    """Convolutions and GroupNorm that take attention maps up the pyramid, one level a step.

    `lay1`, `lay2` work at the transformer's level, then one layer a pyramid level, then `out_lay`. `pyramid` holds
    the channels of the levels below the last, coarsest first. In `exact` mode (`valid` given) no cell outside an
    image is seen: neither by a convolution nor by the statistics of a norm.
    """

    def __init__(self, hidden_dim: int, nheads: int, pyramid: list[int]) -> None:
        super().__init__()
        steps = len(pyramid)
        dims = [hidden_dim + nheads, *(hidden_dim // 2**i for i in range(1, steps + 2))]
        inputs = [dims[0], *dims[:-1]]
        for i, (before, after) in enumerate(zip(inputs, dims, strict=True), start=1):
            self.add_module(f"lay{i}", nn.Conv2d(before, after, 3, padding=1))
            self.add_module(f"gn{i}", nn.GroupNorm(8, after))
        self.out_lay = nn.Conv2d(dims[-1], 1, 3, padding=1)
        for i, channels in enumerate(pyramid, start=1):
            self.add_module(f"adapter{i}", nn.Conv2d(channels, dims[i], 1))
        self.hidden_dim = hidden_dim
        self.steps = steps
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(
        self,
        features: Tensor,
        attention: Tensor,
        pyramid: list[Tensor],
        image: Tensor,
        valid: list[Tensor] | None,
    ) -> Tensor:
        """Mask logits [K, h', w'] at the stride of the finest level.

        features [B, C, h, w], attention [K, heads, h, w], pyramid features [B, *, *, *] and their validity
        [B, 1, *, *] coarsest first (`valid` has one more in front, for `features`), image int64 [K].
        """
        first, *finer = [None] * (len(pyramid) + 1) if valid is None else valid
        x = self.start(features, attention, image, first)
        for i, (level, inside) in enumerate(zip(pyramid, finer, strict=True), start=1):
            x = self.step(i, x, level, image, inside)
        return self.out_lay(_masked(x, _of_queries(finer[-1], image))).squeeze(1)

    def start(self, features: Tensor, attention: Tensor, image: Tensor, valid: Tensor | None) -> Tensor:
        """`lay1` and `lay2`, at the transformer's level: to [K, C, h, w], of what `forward` takes; valid [B, 1, h, w].

        `lay1` takes features and attention side by side, split so that the features' part runs once an image.
        """
        at = _of_queries(valid, image)
        lay1 = self.lay1
        assert isinstance(lay1, nn.Conv2d)
        of_image, of_query = lay1.weight[:, : self.hidden_dim], lay1.weight[:, self.hidden_dim :]
        x = functional.conv2d(_masked(features, valid), of_image, lay1.bias, padding=1)[image]
        x = x + functional.conv2d(_masked(attention, at), of_query, padding=1)
        gn1 = self.gn1
        assert isinstance(gn1, nn.GroupNorm)
        return self._block(2, functional.relu(_group_norm(x, gn1, at)), at)

    def step(self, i: int, x: Tensor, level: Tensor, image: Tensor, valid: Tensor | None) -> Tensor:
        """Take x [K, *, h, w] up to the i-th finer level [B, *, h', w'], whose validity is `valid` [B, 1, h', w']."""
        fine = getattr(self, f"adapter{i}")(level)[image]  # (K, *, h', w')
        x = fine + functional.interpolate(x, size=fine.shape[-2:], mode="nearest")
        return self._block(2 + i, x, _of_queries(valid, image))

    def _block(self, i: int, x: Tensor, at: Tensor | None) -> Tensor:
        x = getattr(self, f"lay{i}")(_masked(x, at))
        return functional.relu(_group_norm(x, getattr(self, f"gn{i}"), at))


def _of_queries(valid: Tensor | None, image: Tensor) -> Tensor | None:
    return None if valid is None else valid[image]


def _masked(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid


def _group_norm(x: Tensor, norm: nn.GroupNorm, valid: Tensor | None) -> Tensor:
    """`norm` with statistics over the valid cells only; x [K, C, h, w], valid [K, 1, h, w] or None for all.

    Written out in either case: K may be 0, which ONNX's GroupNormalization does not take.
    """
    groups = x.float().unflatten(1, (norm.num_groups, -1))  # (K, groups, C / groups, h, w)
    inside = torch.ones_like(groups[:, :1, :1]) if valid is None else valid.float().unsqueeze(1)
    count = inside.sum((2, 3, 4), keepdim=True) * groups.shape[2]
    mean = (groups * inside).sum((2, 3, 4), keepdim=True) / count
    variance = (((groups - mean) * inside) ** 2).sum((2, 3, 4), keepdim=True) / count
    normed = ((groups - mean) * torch.rsqrt(variance + norm.eps)).flatten(1, 2)
    return (normed * norm.weight[:, None, None] + norm.bias[:, None, None]).to(x.dtype)
