"""The attention of a network in torch, from torch's own multi-head attention and nothing of what is served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model.network.build import detector_of
from model.network.nested_tensor import normalize


@dataclass
class TorchAttention:
    """Mean weights of the heads for one image, over the cells of its canvas."""

    cross: NDArray[np.float32]  # [Q, rows, columns], of the last decoder layer
    own: NDArray[np.float32]  # [rows, columns, rows, columns], of the last encoder layer; asking first


def attention_in_torch(network: nn.Module, image: NDArray[np.uint8]) -> TorchAttention:
    """Run a network on an image [h, w, 3], alone on a canvas that divides by 32, and weigh what its layers get."""
    height, width = (-(-side // 32) * 32 for side in image.shape[:2])
    canvas = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    canvas[0, :, : image.shape[0], : image.shape[1]] = torch.from_numpy(image.copy()).permute(2, 0, 1)
    padding_mask = torch.ones(1, height, width, dtype=torch.bool)
    padding_mask[0, : image.shape[0], : image.shape[1]] = False
    detector = detector_of(network)
    transformer: Any = detector.transformer
    with (
        torch.no_grad(),
        _inputs_of(transformer.decoder.layers[-1].multihead_attn) as cross,
        _inputs_of(transformer.encoder.layers[-1].self_attn) as own,
    ):
        network(normalize(canvas, padding_mask))
        stride = detector.body.level_strides[-1]
        rows, columns = height // stride, width // stride
        weights = [_weights(seen)[0].numpy() for seen in (cross, own)]
    return TorchAttention(weights[0].reshape(-1, rows, columns), weights[1].reshape(rows, columns, rows, columns))


@dataclass
class _Seen:
    module: Any
    arguments: tuple[Any, ...] = field(default=())


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[_Seen]:
    seen = _Seen(module)

    def note(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.arguments = arguments

    handle = module.register_forward_pre_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def _weights(seen: _Seen) -> Tensor:
    """[B, L, S] of a layer, as torch's own attention says them."""
    module, (query, key, value, padding_mask) = seen.module, seen.arguments
    _, weights = functional.multi_head_attention_forward(
        query.transpose(0, 1),
        key.transpose(0, 1),
        value.transpose(0, 1),
        embed_dim_to_check=query.shape[-1],
        num_heads=module.nheads,
        in_proj_weight=module.in_proj_weight,
        in_proj_bias=module.in_proj_bias,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=module.out_proj.weight,
        out_proj_bias=module.out_proj.bias,
        training=False,
        key_padding_mask=padding_mask,
        need_weights=True,
        average_attn_weights=True,
    )
    assert weights is not None
    return weights
