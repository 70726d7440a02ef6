"""A padded batch: images of unequal sizes on one canvas, and which of its pixels are padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.runtime.preprocess import CANVAS_MULTIPLE, IMAGENET_NORMALIZATION, Normalization, round_up


class NestedTensor(NamedTuple):
    """Images on one canvas, top-left aligned.

    `tensors` is float32 [B, C, H, W], zero on padding; `padding_mask` is bool [B, H, W], True on padding.
    """

    tensors: Tensor
    padding_mask: Tensor


def pad_images(images: Sequence[Tensor], multiple: int = CANVAS_MULTIPLE) -> NestedTensor:
    """Put images [C, h_i, w_i] on the smallest common canvas whose sides are multiples of `multiple`.

    With a multiple of 32 the valid cells at stride s are exactly ceil(h/s) x ceil(w/s), which exact padding needs;
    `multiple=1` gives the canvas of the reference (util/misc.py). Raises ValueError on an empty sequence.
    """
    if not images:
        raise ValueError("a batch needs at least one image")
    height = round_up(max(image.shape[-2] for image in images), multiple)
    width = round_up(max(image.shape[-1] for image in images), multiple)
    first = images[0]
    canvas = first.new_zeros((len(images), first.shape[0], height, width))
    padding_mask = torch.ones((len(images), height, width), dtype=torch.bool, device=first.device)
    for i, image in enumerate(images):
        h, w = image.shape[-2:]
        canvas[i, :, :h, :w] = image
        padding_mask[i, :h, :w] = False
    return NestedTensor(canvas, padding_mask)


def normalize(
    images: Tensor, padding_mask: Tensor, normalization: Normalization = IMAGENET_NORMALIZATION
) -> NestedTensor:
    """uint8 images [B, 3, H, W] to what the network takes: mean and deviation removed, zeros on padding."""
    mean = torch.tensor(normalization.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(normalization.std, device=images.device).view(3, 1, 1)
    valid = (~padding_mask).unsqueeze(1)  # (B, 1, H, W)
    return NestedTensor((images.float() / 255 - mean) / std * valid, padding_mask)
