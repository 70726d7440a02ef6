"""Position encodings: their values, and that they know the image and not its canvas."""

from __future__ import annotations

from math import cos, pi, sin

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.position_encoding import PositionEmbeddingLearned, PositionEmbeddingSine

sides = st.integers(1, 9)
margins = st.integers(0, 5)


def padding_mask(height: int, width: int, below: int = 0, right: int = 0) -> Tensor:
    mask = torch.ones(1, height + below, width + right, dtype=torch.bool)
    mask[:, :height, :width] = False
    return mask


def plain_sine(index: int, length: int, features: int) -> list[float]:
    """The encoding of the index-th of `length` cells: sine-cosine pairs of ever lower frequency."""
    position = (index + 1) / length * 2 * pi
    angles = [position / 10000 ** (2 * pair / features) for pair in range(features // 2)]
    return [value for angle in angles for value in (sin(angle), cos(angle))]


def test_the_middle_and_the_end_of_an_axis_have_the_values_worked_out_by_hand() -> None:
    encoding = PositionEmbeddingSine(4)(padding_mask(1, 2))
    assert encoding.shape == (1, 8, 1, 2)
    end = [0.0, 1.0, sin(2 * pi / 100), cos(2 * pi / 100)]
    assert encoding[0, :, 0, 0].tolist() == pytest.approx([*end, 0.0, -1.0, sin(pi / 100), cos(pi / 100)], abs=1e-4)
    assert encoding[0, :, 0, 1].tolist() == pytest.approx([*end, *end], abs=1e-4)


@settings(max_examples=15)
@given(height=sides, width=sides, features=st.sampled_from([2, 4, 10]))
def test_the_first_half_of_the_channels_encodes_the_row_and_the_second_the_column(
    height: int, width: int, features: int
) -> None:
    encoding = PositionEmbeddingSine(features)(padding_mask(height, width))
    assert encoding.dtype == torch.float32
    for y in range(height):
        for x in range(width):
            expected = plain_sine(y, height, features) + plain_sine(x, width, features)
            assert encoding[0, :, y, x].tolist() == pytest.approx(expected, abs=1e-4)


@settings(max_examples=15)
@given(height=sides, width=sides, below=margins, right=margins)
def test_a_sine_encoding_is_the_same_whatever_the_padding(height: int, width: int, below: int, right: int) -> None:
    encode = PositionEmbeddingSine(8)
    alone, padded = encode(padding_mask(height, width)), encode(padding_mask(height, width, below, right))
    torch.testing.assert_close(padded[:, :, :height, :width], alone, rtol=0, atol=1e-6)
    assert bool(padded.isfinite().all())


def test_a_sine_encoding_has_nothing_to_learn_or_to_store() -> None:
    encode = PositionEmbeddingSine(8)
    assert not list(encode.parameters())
    assert not encode.state_dict()


def test_a_learned_encoding_is_the_vector_of_the_column_then_that_of_the_row() -> None:
    encode = PositionEmbeddingLearned(3)
    encoding = encode(padding_mask(4, 5))
    assert encoding.shape == (1, 6, 4, 5)
    for y in range(4):
        for x in range(5):
            expected = torch.cat((encode.col_embed.weight[x], encode.row_embed.weight[y]))
            assert torch.equal(encoding[0, :, y, x], expected)


@settings(max_examples=10)
@given(height=sides, width=sides, below=margins, right=margins)
def test_a_learned_encoding_is_the_same_whatever_the_padding(height: int, width: int, below: int, right: int) -> None:
    encode = PositionEmbeddingLearned(3)
    alone, padded = encode(padding_mask(height, width)), encode(padding_mask(height, width, below, right))
    assert torch.equal(padded[:, :, :height, :width], alone)


def test_images_of_one_batch_share_a_learned_encoding() -> None:
    encode = PositionEmbeddingLearned(3)
    encoding = encode(torch.cat((padding_mask(4, 6), padding_mask(2, 3, 2, 3))))
    assert encoding.shape == (2, 6, 4, 6)
    assert torch.equal(encoding[0], encoding[1])


def test_a_learned_encoding_reaches_fifty_cells() -> None:
    assert PositionEmbeddingLearned(3)(padding_mask(50, 50)).shape == (1, 6, 50, 50)


@pytest.mark.parametrize("size", [(51, 1), (1, 51)])
def test_a_learned_encoding_refuses_a_larger_feature_map_with_what_to_do(size: tuple[int, int]) -> None:
    message = rf"reach 50 x 50 cells, .* has {size[0]} x {size[1]}: use smaller images or sine"
    with pytest.raises(ValueError, match=message):
        PositionEmbeddingLearned(3)(padding_mask(*size))
