import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms.v2 import functional as torchvision_functional
from transformers.image_transforms import get_size_with_aspect_ratio

from model.runtime.preprocess import CANVAS_MULTIPLE, Batch, ResizeRule, make_batch, resize

PUBLISHED = ResizeRule(800, 1333)
SIDES = st.integers(1, 20_000)
RULES = st.tuples(st.integers(1, 1500), st.integers(1, 2500)).map(sorted).map(lambda edges: ResizeRule(*edges))


def image_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # most of COCO
        ((640, 480), (1066, 800)),
        ((427, 640), (800, 1199)),
        ((500, 1000), (666, 1332)),  # 1333 / 2 is 666.5, which rounds to even
        (
            (375, 1242),
            (402, 1331),
        ),  # a panorama: the longer side decides, and the shorter one is rounded down
        ((381, 1242), (409, 1333)),
        ((376, 1241), (404, 1333)),
        ((300, 1241), (322, 1332)),
        ((302, 1243), (324, 1333)),
        ((800, 900), (800, 900)),  # the shorter side is right already
        ((100, 100), (800, 800)),
        ((1, 3), (444, 1332)),
        (
            (3, 5000),
            (1, 1666),
        ),  # rounding up a side of 0.8 pixels carries the other past the limit, as published
        ((1, 20_000), (1, 1333)),  # the published rule gives 0 here, and fails
        ((20_000, 1), (1333, 1)),
    ],
)
def test_sizes_of_known_shapes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert PUBLISHED.size(*size) == expected


@given(SIDES, SIDES, RULES)
def test_every_side_is_positive_and_bounded(height: int, width: int, rule: ResizeRule) -> None:
    new_height, new_width = rule.size(height, width)
    short, long = sorted((new_height, new_width))
    aspect = max(height, width) / min(height, width)
    assert short >= 1
    assert short <= rule.shortest_edge
    # Rounding the shorter side moves the longer one by at most half an aspect ratio.
    assert long <= rule.longest_edge + aspect / 2
    assert long <= 2 * rule.longest_edge


@given(SIDES, SIDES, RULES)
def test_height_and_width_are_treated_alike(height: int, width: int, rule: ResizeRule) -> None:
    assert rule.size(height, width) == rule.size(width, height)[::-1]


@given(SIDES, SIDES, RULES)
def test_the_longer_side_stays_the_longer(height: int, width: int, rule: ResizeRule) -> None:
    new_height, new_width = rule.size(height, width)
    assert (new_height - new_width) * (height - width) >= 0


@given(st.integers(50, 5000), st.integers(50, 5000), RULES)
@example(480, 640, PUBLISHED)
def test_the_size_agrees_with_transformers_where_the_shorter_edge_decides(
    height: int, width: int, rule: ResizeRule
) -> None:
    # Where the longer edge decides, transformers rounds the shorter side but computes the longer from the
    # unrounded.
    found, reference = (
        rule.size(height, width),
        get_size_with_aspect_ratio((height, width), rule.shortest_edge, rule.longest_edge),
    )
    if max(height, width) * rule.shortest_edge <= rule.longest_edge * min(height, width):
        assert found == reference
    elif min(found) > 1:
        assert min(found) == min(reference)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (97, 141), (40, 40), (300, 200)])
def test_the_size_agrees_with_torchvision_where_the_shorter_edge_decides(size: tuple[int, int]) -> None:
    resized = torchvision_functional.resize(torch.zeros(3, *size, dtype=torch.uint8), [80], max_size=133)
    assert ResizeRule(80, 133).size(*size) == tuple(resized.shape[1:])


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_image_without_pixels_has_no_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive sides"):
        PUBLISHED.size(*size)


@pytest.mark.parametrize("edges", [(0, 10), (20, 10), (-1, -1)])
def test_a_rule_that_cannot_be_kept_is_refused(edges: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shortest edge"):
        ResizeRule(*edges)


def test_resizing_is_pillows_bilinear_filter() -> None:
    image = image_of(97, 141)
    resized = resize(image, ResizeRule(48, 80))
    reference = Image.fromarray(image).resize((69, 48), Image.Resampling.BILINEAR)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, np.asarray(reference))


def test_resizing_agrees_with_torchvision_on_a_pillow_image() -> None:
    image = image_of(60, 90)
    reference = torchvision_functional.resize(Image.fromarray(image), [48], max_size=80)
    np.testing.assert_array_equal(resize(image, ResizeRule(48, 80)), np.asarray(reference))


def test_an_image_of_the_right_size_is_returned_untouched() -> None:
    image = image_of(48, 60)
    assert resize(image, ResizeRule(48, 80)) is image


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_a_batch_holds_each_image_at_its_top_left_and_zeros_elsewhere(sizes: list[tuple[int, int]]) -> None:
    images = [image_of(*size, seed=index) for index, size in enumerate(sizes)]
    batch = make_batch(images)
    assert batch.sizes == tuple(sizes)
    assert batch.images.shape == (*batch.padding_mask.shape, 3)
    assert batch.images.dtype == np.uint8
    assert batch.padding_mask.dtype == np.bool_
    for image, (h, w), canvas, mask in zip(images, sizes, batch.images, batch.padding_mask, strict=True):
        np.testing.assert_array_equal(canvas[:h, :w], image)
        assert not canvas[mask].any()
        assert not mask[:h, :w].any()
        assert mask.sum() == mask.size - h * w


@given(st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4))
def test_the_canvas_is_the_smallest_that_divides(sizes: list[tuple[int, int]]) -> None:
    canvas = make_batch([image_of(*size) for size in sizes]).padding_mask.shape[1:]
    for side, needed in zip(canvas, (max(h for h, _ in sizes), max(w for _, w in sizes)), strict=True):
        assert side % CANVAS_MULTIPLE == 0
        assert needed <= side < needed + CANVAS_MULTIPLE


def test_the_padding_ratio_counts_the_pixels_that_belong_to_no_image() -> None:
    batch = make_batch([image_of(32, 64), image_of(32, 32)])
    assert batch.padding_ratio == pytest.approx(0.25)
    assert batch.padding_ratio == pytest.approx(batch.padding_mask.mean())


def test_a_batch_of_whole_canvases_has_no_padding() -> None:
    batch: Batch = make_batch([image_of(64, 32)] * 3)
    assert batch.padding_ratio == 0.0


def test_a_batch_needs_an_image() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        make_batch([])
