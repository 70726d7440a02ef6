"""The encoder-decoder of DETR (paper section 3.2 and appendix A.3), post-norm as published or pre-norm.

Sequences are batch-first, [B, L, C]. Positions are added to queries and keys at every attention, never to values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


class MultiheadAttention(nn.Module):
    """Attention through `scaled_dot_product_attention`, with the parameter names of `nn.MultiheadAttention`."""

    def __init__(self, hidden_dim: int, nheads: int, dropout: float) -> None:
        super().__init__()
        self.nheads = nheads
        self.dropout = dropout
        # Shown the projected queries [B, L, C] and keys [B, S, C], from which the weights of the attention follow.
        self.on_projected: Callable[[Tensor, Tensor], None] | None = None
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_dim, hidden_dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_dim))
        self.out_proj = nn.Linear(hidden_dim, hidden_dim)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        """query [B, L, C], key and value [B, S, C], padding_mask bool [B, S] (True: not attended) to [B, L, C]."""
        wq, wk, wv = self.in_proj_weight.chunk(3)
        bq, bk, bv = self.in_proj_bias.chunk(3)
        queries, keys = functional.linear(query, wq, bq), functional.linear(key, wk, bk)
        if self.on_projected is not None:
            self.on_projected(queries, keys)
        q, k = self._heads(queries), self._heads(keys)  # (B, heads, L, d), (B, heads, S, d)
        v = self._heads(functional.linear(value, wv, bv))
        dropout = self.dropout if self.training else 0.0
        if torch.compiler.is_exporting() or _plain_is_faster(q, k):
            out = plain_attention(q, k, v, padding_mask, dropout)
        else:
            attended = None if padding_mask is None else ~padding_mask[:, None, None, :]
            out = functional.scaled_dot_product_attention(q, k, v, attn_mask=attended, dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.nheads, -1)).transpose(1, 2)


@contextmanager
def projections_of(attention: MultiheadAttention) -> Iterator[list[Tensor]]:
    """A list that holds, once the network has run, what the attention compares: queries [B, L, C] and keys [B, S, C].

    They are projected, with the channels of the heads side by side.
    """
    seen: list[Tensor] = []
    attention.on_projected = lambda queries, keys: seen.extend((queries, keys))
    try:
        yield seen
    finally:
        attention.on_projected = None


def _plain_is_faster(q: Tensor, k: Tensor) -> bool:
    """Whether q [B, heads, L, d] and k [B, heads, S, d] are better multiplied one after the other than fused.

    torch's fused attention in bfloat16 on a CPU takes 1.9 to 7 times as long, forward and backward, up to 400 x 400
    scores a head, and has caught up at 1050 x 1050.
    """
    return q.device.type == "cpu" and q.dtype is torch.bfloat16 and q.shape[2] * k.shape[2] <= 2**19


def plain_attention(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, dropout: float = 0.0) -> Tensor:
    """`scaled_dot_product_attention` of q [B, heads, L, d] with k and v [B, heads, S, d], as an exported graph has it.

    `dropout` is the share of weights that is dropped. At least one cell of every image must be valid, which every image
    gives. The exporter's own translation looks for rows that attend to nothing, in as many comparisons as there are
    scores; OpenVINO then no longer sees attention in it, and keeps every score in memory.
    """
    scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, heads, L, S)
    if padding_mask is not None:
        padding = padding_mask[:, None, None, :]
        scores = scores + torch.zeros_like(padding, dtype=scores.dtype).masked_fill(padding, -math.inf)
    weights = scores.softmax(-1)
    if dropout:
        weights = functional.dropout(weights, dropout)
    return weights @ v


class TransformerEncoderLayer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a norm after (or before) it."""

    def __init__(self, hidden_dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(hidden_dim, nheads, dropout)
        self.linear1 = nn.Linear(hidden_dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, hidden_dim)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, src: Tensor, pos: Tensor, padding_mask: Tensor | None) -> Tensor:
        """src and pos [B, L, C], padding_mask bool [B, L] to [B, L, C]."""
        if self.pre_norm:
            src = src + self._attend(self.norm1(src), pos, padding_mask)
            return src + self._feed_forward(self.norm2(src))
        src = self.norm1(src + self._attend(src, pos, padding_mask))
        return self.norm2(src + self._feed_forward(src))

    def _attend(self, x: Tensor, pos: Tensor, padding_mask: Tensor | None) -> Tensor:
        q = x + pos
        return self.dropout(self.self_attn(q, q, x, padding_mask))

    def _feed_forward(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.relu(self.linear1(x)))
        return self.dropout(self.linear2(x))


class TransformerDecoderLayer(nn.Module):
    """Self-attention among the object queries, cross-attention to the image, and a feed-forward network."""

    def __init__(self, hidden_dim: int, nheads: int, dim_feedforward: int, dropout: float, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(hidden_dim, nheads, dropout)
        self.multihead_attn = MultiheadAttention(hidden_dim, nheads, dropout)
        self.linear1 = nn.Linear(hidden_dim, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, hidden_dim)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.norm3 = nn.LayerNorm(hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(
        self, tgt: Tensor, memory: Tensor, pos: Tensor, query_pos: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        """tgt and query_pos [B, Q, C], memory and pos [B, L, C], padding_mask bool [B, L] to [B, Q, C]."""
        if self.pre_norm:
            tgt = tgt + self._attend_queries(self.norm1(tgt), query_pos)
            tgt = tgt + self._attend_image(self.norm2(tgt), memory, pos, query_pos, padding_mask)
            return tgt + self._feed_forward(self.norm3(tgt))
        tgt = self.norm1(tgt + self._attend_queries(tgt, query_pos))
        tgt = self.norm2(tgt + self._attend_image(tgt, memory, pos, query_pos, padding_mask))
        return self.norm3(tgt + self._feed_forward(tgt))

    def _attend_queries(self, x: Tensor, query_pos: Tensor) -> Tensor:
        q = x + query_pos
        return self.dropout(self.self_attn(q, q, x))

    def _attend_image(
        self, x: Tensor, memory: Tensor, pos: Tensor, query_pos: Tensor, padding_mask: Tensor | None
    ) -> Tensor:
        attended = self.multihead_attn(x + query_pos, memory + pos, memory, padding_mask)
        return self.dropout(attended)

    def _feed_forward(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.relu(self.linear1(x)))
        return self.dropout(self.linear2(x))


class TransformerEncoder(nn.Module):
    """A stack of encoder layers; pre-norm needs one more norm at its end."""

    def __init__(self, layers: list[TransformerEncoderLayer], norm: nn.LayerNorm | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, src: Tensor, pos: Tensor, padding_mask: Tensor | None) -> Tensor:
        """src and pos [B, L, C] to the memory [B, L, C]."""
        for layer in self.layers:
            src = layer(src, pos, padding_mask)
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(nn.Module):
    """A stack of decoder layers; the same norm reads the output of each, which the auxiliary heads need."""

    def __init__(self, layers: list[TransformerDecoderLayer], norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = norm

    def forward(self, memory: Tensor, pos: Tensor, query_pos: Tensor, padding_mask: Tensor | None) -> Tensor:
        """memory and pos [B, L, C], query_pos [B, Q, C] to [layers, B, Q, C]; in an exported graph the last layer's."""
        tgt = torch.zeros_like(query_pos)
        outputs = []
        for layer in self.layers:
            tgt = layer(tgt, memory, pos, query_pos, padding_mask)
            outputs.append(tgt)
        if torch.compiler.is_exporting():
            # Only training asks for the others, and the exporter does not see that their heads are for nothing.
            outputs = outputs[-1:]
        return torch.stack([self.norm(output) for output in outputs])


class Transformer(nn.Module):
    """Encoder and decoder, initialised as published (Xavier uniform on every matrix)."""

    def __init__(
        self,
        hidden_dim: int,
        nheads: int,
        dim_feedforward: int,
        encoder_layers: int,
        decoder_layers: int,
        dropout: float,
        pre_norm: bool,
    ) -> None:
        super().__init__()
        sizes = (hidden_dim, nheads, dim_feedforward, dropout, pre_norm)
        self.encoder = TransformerEncoder(
            [TransformerEncoderLayer(*sizes) for _ in range(encoder_layers)],
            nn.LayerNorm(hidden_dim) if pre_norm else None,
        )
        self.decoder = TransformerDecoder(
            [TransformerDecoderLayer(*sizes) for _ in range(decoder_layers)], nn.LayerNorm(hidden_dim)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, src: Tensor, padding_mask: Tensor, pos: Tensor, query_embed: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, C, h, w], their padding_mask [B, h, w] and positions, query_embed [Q, C].

        Returns the decoder's outputs [layers, B, Q, C], the answer last, and the memory [B, C, h, w].
        """
        batch, _, height, width = src.shape
        tokens = src.flatten(2).transpose(1, 2)  # (B, h * w, C)
        pos = pos.flatten(2).transpose(1, 2)
        padding_mask = padding_mask.flatten(1)  # (B, h * w)
        query_pos = query_embed.unsqueeze(0).expand(batch, -1, -1)
        memory = self.encoder(tokens, pos, padding_mask)
        hs = self.decoder(memory, pos, query_pos, padding_mask)
        return hs, memory.transpose(1, 2).unflatten(2, (height, width))
