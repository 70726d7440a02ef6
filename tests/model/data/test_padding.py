"""The share of padding is that of the canvases the network gets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.data.coco_files import Target
from model.data.collate import AspectRatioBatchSampler, Draw, collate
from model.data.padding import padding_ratio, padding_ratios
from model.runtime.preprocess import ResizeRule

RULE = ResizeRule(40, 70)
SIZES = st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=12)


@settings(max_examples=40)
@given(sizes=SIZES, batch_size=st.integers(1, 4))
def test_the_ratio_is_that_of_the_padding_masks(sizes: list[tuple[int, int]], batch_size: int) -> None:
    draws = list(AspectRatioBatchSampler(sizes, batch_size))
    masks = []
    for batch in draws:
        shapes = [(3, *RULE.size(*sizes[draw.index])) for draw in batch]
        items: list[tuple[Tensor, Target]] = [(torch.zeros(shape, dtype=torch.uint8), {}) for shape in shapes]
        masks.append(collate(items)[0].padding_mask)
    padding, total = sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)
    assert padding_ratio(sizes, [RULE], draws) == pytest.approx(padding / total)


def test_several_rules_are_all_used() -> None:
    rules = [ResizeRule(32, 64), ResizeRule(64, 64)]
    alone = [[Draw(0, seed)] for seed in range(4)]
    assert padding_ratio([(50, 50)], rules, alone) == 0
    together = [[Draw(0, 0), Draw(0, 1)]]
    assert padding_ratio([(50, 50)], rules, together) == pytest.approx(1 - (32 * 32 + 64 * 64) / (2 * 64 * 64))


def test_grouping_by_aspect_ratio_saves_padding() -> None:
    ratios = padding_ratios([(480, 640), (640, 480)] * 40, [ResizeRule(96, 160)], 4)
    assert ratios.grouped == 0
    assert ratios.ungrouped > 0.1
    assert str(ratios) == f"padding: 0.0% of the canvas ({ratios.ungrouped:.1%} without grouping by aspect ratio)"


def test_nothing_has_no_padding_to_measure() -> None:
    with pytest.raises(ValueError, match="no batch"):
        padding_ratio([(5, 5)], [RULE], [])
    with pytest.raises(ValueError, match="resize rule"):
        padding_ratios([(5, 5)], [], 1)
