"""Padded batches: where the images lie, what is padding, and what the network sees there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.nested_tensor import normalize, pad_images
from model.runtime.preprocess import round_up

sizes = st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@given(length=st.integers(0, 10_000), multiple=st.integers(1, 100))
def test_rounding_up_gives_the_next_multiple_that_is_not_below(length: int, multiple: int) -> None:
    rounded = round_up(length, multiple)
    assert rounded % multiple == 0
    assert length <= rounded < length + multiple


@settings(max_examples=30)
@given(sizes=sizes, multiple=st.sampled_from([1, 32, 48]))
def test_images_lie_top_left_on_the_smallest_common_canvas(sizes: list[tuple[int, int]], multiple: int) -> None:
    images = [picture(*size, seed=i) for i, size in enumerate(sizes)]
    tensors, padding_mask = pad_images(images, multiple)
    height, width = (round_up(max(side), multiple) for side in zip(*sizes, strict=True))
    assert tensors.shape == (len(images), 3, height, width)
    assert tensors.dtype == torch.uint8
    assert padding_mask.shape == (len(images), height, width)
    assert padding_mask.dtype == torch.bool
    for image, on_canvas, padding in zip(images, tensors, padding_mask, strict=True):
        h, w = image.shape[-2:]
        assert torch.equal(on_canvas[:, :h, :w], image)
        assert not bool(padding[:h, :w].any())
        assert int(padding.sum()) == height * width - h * w
        assert not bool(on_canvas[:, padding].any())


@settings(max_examples=30)
@given(height=st.integers(1, 200), width=st.integers(1, 200), stride=st.sampled_from([4, 8, 16, 32]))
def test_on_a_canvas_of_32s_the_valid_cells_at_a_stride_are_those_the_image_reaches(
    height: int, width: int, stride: int
) -> None:
    cells = ~pad_images([picture(height, width)]).padding_mask[0, ::stride, ::stride]
    rows, cols = -(-height // stride), -(-width // stride)
    assert bool(cells[:rows, :cols].all())
    assert int(cells.sum()) == rows * cols


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        pad_images([])


def test_pixels_are_normalized_with_the_mean_and_deviation_of_imagenet() -> None:
    pixel = torch.tensor([0, 51, 255], dtype=torch.uint8)
    found = normalize(pixel.view(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.bool)).tensors
    expected = [(0.0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1.0 - 0.406) / 0.225]
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_padding_is_zero_after_normalizing_and_black_pixels_are_not() -> None:
    black = torch.zeros(3, 20, 10, dtype=torch.uint8)
    tensors, padding_mask = normalize(*pad_images([black]))
    assert not bool(tensors[0, :, padding_mask[0]].any())
    assert bool((tensors[0, :, ~padding_mask[0]] != 0).all())
