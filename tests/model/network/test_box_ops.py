"""Boxes: formats and generalised IoU, against plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.network.box_ops import cxcywh_to_xyxy, giou_loss_xyxy, pairwise_giou_xyxy
from tests.model.plain_boxes import corners, giou_xyxy, random_boxes_cxcywh

counts = st.integers(0, 4)
seeds = st.integers(0, 2**31)


def boxes_xyxy(count: int, seed: int) -> Tensor:
    return cxcywh_to_xyxy(random_boxes_cxcywh(count, torch.Generator().manual_seed(seed)))


def test_a_centre_and_a_size_become_two_corners() -> None:
    found = cxcywh_to_xyxy(torch.tensor([[10.0, 20.0, 4.0, 6.0], [0.5, 0.5, 1.0, 1.0]]))
    assert found.tolist() == [[8.0, 17.0, 12.0, 23.0], [0.0, 0.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("a", "b", "giou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3),  # half of each, and the hull is full
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0),  # side by side
        ((0, 0, 1, 1), (2, 0, 3, 1), -1 / 3),  # a third of the hull between them
        ((0, 0, 1, 1), (1, 1, 2, 2), -1 / 2),  # corner to corner
        ((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4),  # one inside the other
    ],
)
def test_generalised_iou_has_the_values_worked_out_by_hand(
    a: tuple[float, ...], b: tuple[float, ...], giou: float
) -> None:
    boxes1, boxes2 = torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32)
    assert float(pairwise_giou_xyxy(boxes1, boxes2)) == pytest.approx(giou, abs=1e-6)
    assert float(giou_loss_xyxy(boxes1, boxes2)) == pytest.approx(1 - giou, abs=1e-6)


@settings(max_examples=30)
@given(n=counts, m=counts, seed=seeds)
def test_every_pair_has_its_generalised_iou(n: int, m: int, seed: int) -> None:
    boxes1, boxes2 = boxes_xyxy(n, seed), boxes_xyxy(m, seed + 1)
    found = pairwise_giou_xyxy(boxes1, boxes2)
    assert found.shape == (n, m)
    expected = [[giou_xyxy(a, b) for b in boxes2.tolist()] for a in boxes1.tolist()]
    for row, expected_row in zip(found.tolist(), expected, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-4)


@settings(max_examples=30)
@given(n=counts, seed=seeds)
def test_the_loss_sums_over_counterparts(n: int, seed: int) -> None:
    boxes1, boxes2 = boxes_xyxy(n, seed), boxes_xyxy(n, seed + 1)
    expected = sum(1 - giou_xyxy(a, b) for a, b in zip(boxes1.tolist(), boxes2.tolist(), strict=True))
    assert float(giou_loss_xyxy(boxes1, boxes2)) == pytest.approx(expected, abs=1e-4)


def test_no_boxes_have_no_loss_and_a_gradient_all_the_same() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    loss = giou_loss_xyxy(none, torch.zeros(0, 4))
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("broken", [(2.0, 0.0, 1.0, 1.0), (0.0, 2.0, 1.0, 1.0), (float("nan"), 0.0, 1.0, 1.0)])
@pytest.mark.parametrize("first", [True, False])
def test_boxes_with_swapped_corners_or_no_numbers_are_refused_on_either_side(
    broken: tuple[float, ...], first: bool
) -> None:
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    pair = (torch.tensor([broken]), whole) if first else (whole, torch.tensor([broken]))
    with pytest.raises(ValueError, match="x2 >= x1"):
        pairwise_giou_xyxy(*pair)


def test_plain_corners_are_those_of_the_tensor_code() -> None:
    """The other tests compare with `plain_boxes`, so it has to speak of the same boxes."""
    box = (0.25, 0.5, 0.25, 0.5)
    assert list(corners(box)) == cxcywh_to_xyxy(torch.tensor([box]))[0].tolist()
