from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as torchvision_functional
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width

from model.runtime.resize_rule import (
    PUBLISHED_EDGES,
    Bounds,
    Edges,
    FixedSize,
    OwnSize,
    ResizeRule,
    Rounding,
    parse_resize_rule,
    rule_from_record,
    rule_to_record,
)

SIDES = st.integers(1, 20_000)
ROUNDINGS: st.SearchStrategy[Rounding] = st.sampled_from(["published", "transformers"])
EDGES = st.tuples(st.integers(1, 1500), st.integers(1, 2500)).map(sorted)
RULES = st.builds(lambda edges, rounding: Edges(edges[0], edges[1], rounding), EDGES, ROUNDINGS)
SMALL = st.integers(1, 300)
ANY_RULES = st.one_of(
    st.builds(lambda a, b, rounding: Edges(a, a + b, rounding), SMALL, SMALL, ROUNDINGS),
    st.builds(Bounds, SMALL, SMALL, ROUNDINGS),
    st.builds(FixedSize, SMALL, SMALL),
)
# Every size from 1 x 1 to 2000 x 2000 on a grid, odd ones among them.
GRID = [(height, width) for height in range(1, 2001, 37) for width in range(1, 2001, 41)]


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
    assert PUBLISHED_EDGES.size(*size) == expected


@given(SIDES, SIDES, RULES)
def test_every_side_is_positive_and_bounded(height: int, width: int, rule: Edges) -> None:
    new_height, new_width = rule.size(height, width)
    short, long = sorted((new_height, new_width))
    aspect = max(height, width) / min(height, width)
    assert short >= 1
    assert short <= rule.shortest_edge
    # Rounding the shorter side moves the longer one by at most half an aspect ratio.
    assert long <= rule.longest_edge + aspect / 2
    assert long <= 2 * rule.longest_edge


@given(SIDES, SIDES, RULES)
def test_height_and_width_are_treated_alike(height: int, width: int, rule: Edges) -> None:
    assert rule.size(height, width) == rule.size(width, height)[::-1]


@given(SIDES, SIDES, RULES)
def test_the_longer_side_stays_the_longer(height: int, width: int, rule: Edges) -> None:
    new_height, new_width = rule.size(height, width)
    assert (new_height - new_width) * (height - width) >= 0


@pytest.mark.parametrize("edges", [(800, 1333), (200, 320), (1000, 1000), (64, 65)])
def test_the_sizes_are_those_of_transformers(edges: tuple[int, int]) -> None:
    rule = Edges(*edges, rounding="transformers")
    for size in GRID:
        expected = get_size_with_aspect_ratio(size, *edges)
        assert rule.size(*size) == tuple(max(1, side) for side in expected)


def test_the_two_roundings_differ_by_a_pixel_where_the_longer_edge_decides() -> None:
    assert Edges(800, 1333, "published").size(300, 900) == (444, 1332)
    assert Edges(800, 1333, "transformers").size(300, 900) == (444, 1333)


@pytest.mark.parametrize("bounds", [(320, 320), (480, 640), (1333, 800)])
def test_the_sizes_within_bounds_are_those_of_transformers(bounds: tuple[int, int]) -> None:
    for size in GRID:
        expected = get_image_size_for_max_height_width(size, *bounds)
        assert Bounds(*bounds, "transformers").size(*size) == tuple(max(1, side) for side in expected)


@pytest.mark.parametrize("longest", [800, 1000])
def test_the_published_sizes_within_a_square_are_those_of_the_authors_of_table_transformer(longest: int) -> None:
    for height, width in GRID:
        scale = longest / max(width, height)  # as in their `MaxResize`
        expected = (max(1, round(scale * height)), max(1, round(scale * width)))
        assert Bounds(longest, longest).size(height, width) == expected


@given(SIDES, SIDES)
def test_an_image_is_seen_at_its_own_size_or_at_a_fixed_one(height: int, width: int) -> None:
    assert OwnSize().size(height, width) == (height, width)
    assert FixedSize(48, 64).size(height, width) == (48, 64)


@settings(max_examples=300)
@given(ANY_RULES, st.integers(1, 3000), st.integers(1, 3000))
def test_every_size_is_listed_and_none_is_larger_than_the_largest(rule: ResizeRule, height: int, width: int) -> None:
    assert rule.is_bounded
    assert rule.size(height, width) in set(rule.sizes())
    most_height, most_width = rule.largest(max_pixels=1)
    if max(height, width) < 2 * min(height, width):  # strips aside
        found = rule.size(height, width)
        assert found[0] * found[1] <= most_height * most_width * 1.02


def test_images_of_their_own_size_have_only_the_bound_that_they_are_given() -> None:
    assert not OwnSize().is_bounded
    assert list(OwnSize().sizes()) == []
    assert OwnSize().largest(max_pixels=10_000) == (100, 100)


@given(ANY_RULES | st.just(OwnSize()))
def test_a_rule_comes_back_from_its_record(rule: ResizeRule) -> None:
    assert rule_from_record(rule_to_record(rule)) == rule


@pytest.mark.parametrize(
    ("record", "field"),
    [
        ({}, "resize.rule"),
        ({"rule": "crop"}, "resize.rule"),
        ({"rule": "none", "height": 3}, "resize.height' is unknown"),
        ({"rule": "fixed", "height": 3}, "resize.width' is missing"),
        ({"rule": "fixed", "height": 3, "width": 3.0}, "resize.width' is not of type int"),
        ({"rule": "edges", "shortest_edge": 3, "longest_edge": 4, "rounding": 5}, "resize.rounding"),
        ({"rule": "edges", "shortest_edge": 3, "longest_edge": 4, "rounding": "up"}, "not as 'up'"),
        ({"rule": "bounds", "max_height": 0, "max_width": 4, "rounding": "published"}, "positive sides"),
    ],
)
def test_a_wrong_record_is_refused_by_the_name_of_its_field(record: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        rule_from_record(record)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("800,1333", Edges(800, 1333)),
        ("640x480", FixedSize(height=480, width=640)),
        ("max:640x480", Bounds(max_height=480, max_width=640)),
        ("none", OwnSize()),
    ],
)
def test_a_rule_is_read_as_a_person_writes_it(text: str, rule: ResizeRule) -> None:
    assert parse_resize_rule(text) == rule


@pytest.mark.parametrize("text", ["", "800", "800,", "1333,800", "0x5", "640X480", "max:3", "800,1333,2", "-1,5"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"resize rule|positive sides"):
        parse_resize_rule(text)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (97, 141), (40, 40), (300, 200)])
def test_the_size_agrees_with_torchvision_where_the_shorter_edge_decides(size: tuple[int, int]) -> None:
    resized = torchvision_functional.resize(torch.zeros(3, *size, dtype=torch.uint8), [80], max_size=133)
    assert Edges(80, 133).size(*size) == tuple(resized.shape[1:])


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_an_image_without_pixels_has_no_size(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="positive sides"):
        PUBLISHED_EDGES.size(*size)


@pytest.mark.parametrize("edges", [(0, 10), (20, 10), (-1, -1)])
def test_a_rule_that_cannot_be_kept_is_refused(edges: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shortest edge"):
        Edges(*edges)
