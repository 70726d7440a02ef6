"""Masks in layers are the same masks, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.data.formats.mask_layers import MaskLayers, layer_of_segments, layers_of, masks_of, tight_boxes_xyxy, visible

SEEDS = st.integers(0, 2**32 - 1)


def random_masks(count: int, height: int, width: int, seed: int) -> NDArray[np.bool_]:
    """Rectangles with holes, which overlap often; some have no pixel."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, height, width), dtype=np.bool_)
    for mask in masks:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(height + 1), left : left + rng.integers(width + 1)] = True
    return np.asarray(masks & (rng.random(masks.shape) < 0.8))


@settings(max_examples=150)
@given(count=st.integers(0, 12), height=st.integers(1, 14), width=st.integers(1, 14), seed=SEEDS)
def test_masks_come_out_of_layers_as_they_went_in(count: int, height: int, width: int, seed: int) -> None:
    masks = random_masks(count, height, width, seed)
    layers = layers_of((mask for mask in masks), (height, width))
    assert layers.mask_ids.dtype == torch.uint8
    assert layers.mask_values.dtype == torch.int64
    assert layers.mask_ids.shape[1:] == (height, width)
    restored = masks_of(layers._asdict())
    assert restored.dtype == torch.bool
    assert np.array_equal(restored.numpy(), masks)


@settings(max_examples=80)
@given(count=st.integers(1, 12), seed=SEEDS, chosen=st.sets(st.integers(0, 11)))
def test_dropping_a_value_drops_its_mask_and_no_other(count: int, seed: int, chosen: set[int]) -> None:
    masks = random_masks(count, 9, 11, seed)
    rows = sorted(row for row in chosen if row < count)
    ids, values = layers_of(masks, (9, 11))
    left = {"mask_ids": ids, "mask_values": values[rows]}
    assert np.array_equal(masks_of(left).numpy(), masks[rows])
    assert visible(left).tolist() == masks[rows].any(axis=(1, 2)).tolist()


@settings(max_examples=50)
@given(count=st.integers(1, 12), seed=SEEDS)
def test_a_layer_more_is_begun_only_where_objects_overlap(count: int, seed: int) -> None:
    masks = random_masks(count, 9, 11, seed)
    depth = int(masks.sum(axis=0).max())
    layers = layers_of(masks, (9, 11)).mask_ids
    assert max(1, depth) <= len(layers) <= count
    owner = np.random.default_rng(seed).integers(count, size=(9, 11))
    assert len(layers_of([owner == k for k in range(count)], (9, 11)).mask_ids) == 1


def test_zeros_and_ones_are_masks_too() -> None:
    masks = random_masks(4, 6, 7, seed=5)
    assert torch.equal(layers_of(masks.astype(np.uint8), (6, 7)).mask_ids, layers_of(masks, (6, 7)).mask_ids)


def test_more_objects_than_a_byte_can_count_keep_their_masks() -> None:
    masks = np.eye(300, dtype=np.bool_).reshape(300, 15, 20)
    layers = layers_of(masks, (15, 20))
    assert layers.mask_ids.shape == (1, 15, 20)
    assert layers.mask_ids.dtype == torch.int32
    assert np.array_equal(masks_of(layers._asdict()).numpy(), masks)
    assert bool(visible(layers._asdict()).all())
    assert layers_of(masks[:255], (15, 20)).mask_ids.dtype == torch.uint8


def test_no_masks_have_no_layer() -> None:
    layers = layers_of([], (5, 6))
    assert layers.mask_ids.shape == masks_of(layers._asdict()).shape == (0, 5, 6)
    assert visible(layers._asdict()).shape == (0,)
    assert tight_boxes_xyxy(layers).shape == (0, 4)


@settings(max_examples=50)
@given(seed=SEEDS, kept=st.sets(st.integers(0, 5)))
def test_segments_of_an_id_map_are_one_layer(seed: int, kept: set[int]) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**24, size=6, replace=False).astype(np.int32)
    id_map = ids[rng.integers(6, size=(8, 9))]
    wanted = ids[sorted(kept)]
    layers = layer_of_segments(id_map, wanted.tolist())
    assert layers.mask_ids.shape == (1, 8, 9)
    assert np.array_equal(masks_of(layers._asdict()).numpy(), id_map == wanted[:, None, None])


@settings(max_examples=80)
@given(count=st.integers(0, 8), height=st.integers(1, 12), width=st.integers(1, 12), seed=SEEDS)
def test_a_box_is_tight_around_its_mask(count: int, height: int, width: int, seed: int) -> None:
    masks = random_masks(count, height, width, seed)
    boxes = tight_boxes_xyxy(layers_of(masks, (height, width)))
    assert boxes.dtype == torch.float32
    for mask, box in zip(masks, boxes.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        else:
            assert box == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_layers_of_any_integers_expand(dtype: torch.dtype) -> None:
    ids, values = layers_of(random_masks(5, 6, 7, seed=1), (6, 7))
    assert torch.equal(
        masks_of(MaskLayers(ids.to(dtype), values)._asdict()), masks_of(MaskLayers(ids, values)._asdict())
    )
