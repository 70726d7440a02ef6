import json
import tracemalloc
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.detections import OutputError
from model.runtime.answers.panoptic import PanopticResult, panoptic
from model.runtime.categories import Category
from model.runtime.engines.raw_outputs import ImageOutputs

Floats = NDArray[np.float32]
Size = tuple[int, int]

STRIDE = 4
# Class indices 0 to 3 are things, 4 to 6 are stuff, 7 is no-object.
CATEGORIES = [Category(10 + n, f"class {n}", n < 4, (n, n, n)) for n in range(7)]
CLASSES = len(CATEGORIES)
# COCO panoptic: category ids up to 90 are things, and the published network uses ids as class indices.
PARITY_CATEGORIES = [Category(n, str(n), n <= 90, (n, n, n)) for n in range(250)]


def logits_of(labels: list[int], scores: list[float]) -> Floats:
    """Logits whose softmax gives each query's label that score, and every other class the same share of the
    rest.
    """
    probabilities = np.repeat((1 - np.array(scores)[:, None]) / CLASSES, CLASSES + 1, axis=1)
    probabilities[np.arange(len(labels)), labels] = scores
    return np.log(probabilities).astype(np.float32)


def seen(logits: Floats, masks: Floats, queries: Sequence[int] | None = None) -> ImageOutputs:
    """What a network says about an image; by default the masks are those of the first queries."""
    index = np.array(range(len(masks)) if queries is None else queries, dtype=np.int64)
    return ImageOutputs(logits, np.zeros((len(logits), 4), dtype=np.float32), masks, index)


def cells_of(size: Size) -> Size:
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


def run(
    labels: list[int],
    masks: Floats,
    size: Size,
    orig_size: Size,
    scores: list[float] | None = None,
    threshold: float = 0.5,
) -> PanopticResult:
    logits = logits_of(labels, scores or [0.9] * len(labels))
    return panoptic(seen(logits, masks), size, orig_size, CATEGORIES, threshold, STRIDE)


def plain(
    labels: list[int], masks: Floats, size: Size, orig_size: Size, *, merge_once: bool = False
) -> tuple[NDArray[np.int32], list[tuple[int, int]]]:
    """The algorithm with no thought for time or memory: id map (0 is void), and (label, area) of each
    segment.

    With `merge_once`, it is the published implementation: stuff queries of a class are merged in the first
    round only, and every query but the first of them is then dropped as empty.
    """
    planes = torch.nn.functional.interpolate(torch.from_numpy(masks)[:, None], size, mode="bilinear")[:, 0].numpy()
    alive = list(range(len(labels)))
    first_round = True
    while alive:
        winner = np.array(alive)[planes[alive].argmax(axis=0)]
        group: dict[int, int] = {query: query for query in alive}
        if first_round or not merge_once:
            of_class: dict[int, list[int]] = defaultdict(list)
            for query in alive:
                if not CATEGORIES[labels[query]].isthing:
                    of_class[labels[query]].append(query)
            for queries in of_class.values():
                group |= dict.fromkeys(queries, queries[0])
        merged = np.vectorize(group.__getitem__)(winner).astype(np.int32)
        id_map = np.asarray(Image.fromarray(merged).resize(orig_size[::-1], Image.Resampling.NEAREST))
        owners = {query: query if merge_once else group[query] for query in alive}
        areas = {query: int((id_map == owners[query]).sum()) for query in alive}
        if all(area > 4 for area in areas.values()):
            segments = sorted({owners[query] for query in alive})
            numbers = np.zeros(len(labels), dtype=np.int32)
            numbers[segments] = range(1, len(segments) + 1)
            return numbers[id_map], [(labels[query], areas[query]) for query in segments]
        alive = [query for query in alive if areas[query] > 4]
        first_round = False
    return np.zeros(orig_size, dtype=np.int32), []


def smooth_masks(count: int, cells: Size, seed: int) -> Floats:
    """Blobs, so that segments are regions and not noise; no two queries tie anywhere."""
    rng = np.random.default_rng(seed)
    ys, xs = np.mgrid[: cells[0], : cells[1]]
    centers = rng.uniform(-1, 1, (count, 2)) * cells * 0.6 + np.array(cells) / 2
    radii = rng.uniform(0.5, 6, count)
    blobs = [4 - ((ys - y) ** 2 + (xs - x) ** 2) / radius**2 for (y, x), radius in zip(centers, radii, strict=True)]
    return np.stack(blobs).astype(np.float32) + rng.normal(0, 0.3, (count, *cells)).astype(np.float32)


SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60))
LABELS = st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=7)


def check_consistent(result: PanopticResult, orig_size: Size) -> None:
    """What every result promises, whatever the input."""
    assert result.id_map.shape == orig_size
    assert result.id_map.dtype == np.int32
    assert [segment.id for segment in result.segments] == list(range(1, len(result.segments) + 1))
    assert set(np.unique(result.id_map)) == (set(range(1, len(result.segments) + 1)) or {0})
    for segment in result.segments:
        ys, xs = np.nonzero(result.id_map == segment.id)
        assert segment.area == len(ys) > 4
        assert segment.box_xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert segment.isthing == CATEGORIES[segment.label].isthing
    stuff = [segment.label for segment in result.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff))


@given(LABELS, SIZES, SIZES, st.integers(0, 10_000))
def test_the_result_is_that_of_the_plain_algorithm(labels: list[int], size: Size, orig_size: Size, seed: int) -> None:
    masks = smooth_masks(len(labels), cells_of(size), seed)
    result = run(labels, masks, size, orig_size)
    check_consistent(result, orig_size)
    id_map, segments = plain(labels, masks, size, orig_size)
    np.testing.assert_array_equal(result.id_map, id_map)
    assert [(segment.label, segment.area) for segment in result.segments] == segments


@given(LABELS, SIZES, SIZES, st.integers(0, 10_000))
def test_the_result_is_the_published_one_where_each_stuff_class_has_one_query(
    labels: list[int], size: Size, orig_size: Size, seed: int
) -> None:
    stuff = [label for label in labels if not CATEGORIES[label].isthing]
    assume(len(stuff) == len(set(stuff)))
    masks = smooth_masks(len(labels), cells_of(size), seed)
    result = run(labels, masks, size, orig_size)
    id_map, segments = plain(labels, masks, size, orig_size, merge_once=True)
    np.testing.assert_array_equal(result.id_map, id_map)
    assert [(segment.label, segment.area) for segment in result.segments] == segments


@given(LABELS, SIZES, st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000))
def test_padding_changes_nothing(labels: list[int], size: Size, below: int, right: int, seed: int) -> None:
    masks = smooth_masks(len(labels), cells_of(size), seed)
    # A canvas with other things in it than the image: what the network says there must not be looked at.
    canvas = np.pad(masks, ((0, 0), (0, below), (0, right)), constant_values=1e6)
    alone, padded = (run(labels, part, size, (50, 70)) for part in (masks, canvas))
    np.testing.assert_array_equal(alone.id_map, padded.id_map)
    assert alone.segments == padded.segments


@given(st.integers(1, 6), SIZES, SIZES, st.integers(0, 10_000))
def test_every_stuff_class_is_one_segment(count: int, size: Size, orig_size: Size, seed: int) -> None:
    masks = smooth_masks(count + 1, cells_of(size), seed)
    result = run([4] * count + [0], masks, size, orig_size)
    check_consistent(result, orig_size)
    assert [segment.label for segment in result.segments].count(4) <= 1


def halves() -> Floats:
    """Three masks on 8 x 12 cells: left third, middle third, right third."""
    masks = np.full((3, 8, 12), -5, dtype=np.float32)
    for query in range(3):
        masks[query, :, 4 * query : 4 * query + 4] = 5
    return masks


def test_stuff_queries_of_one_class_are_one_segment_with_the_best_score() -> None:
    result = run([4, 0, 4], halves(), (32, 48), (32, 48), scores=[0.6, 0.7, 0.8])
    assert [(segment.label, segment.area, round(segment.score, 4)) for segment in result.segments] == [
        (4, 32 * 32, 0.8),
        (0, 32 * 16, 0.7),
    ]


def test_things_of_one_class_stay_apart() -> None:
    result = run([1, 0, 1], halves(), (32, 48), (32, 48))
    assert [segment.label for segment in result.segments] == [1, 0, 1]


def test_stuff_stays_merged_after_small_segments_are_dropped() -> None:
    # The thing wins four pixels, which is too few. The published implementation then drops the second stuff
    # query too, and gives all its pixels to the other class.
    labels = [4, 5, 4, 0]
    masks = np.concatenate([halves(), np.full((1, 8, 12), -9, dtype=np.float32)])
    masks[1, :, 8:] = -4.9  # on the right, the other class comes second
    masks[3, 0, 0] = 9
    result = run(labels, masks, (32, 48), (16, 24))
    assert [(segment.label, segment.area) for segment in result.segments] == [(4, 16 * 16), (5, 16 * 8)]
    _, published = plain(labels, masks, (32, 48), (16, 24), merge_once=True)
    assert published == [(4, 16 * 8), (5, 16 * 16)]


def test_the_pixels_of_a_dropped_segment_go_to_what_comes_second() -> None:
    masks = np.full((3, 8, 8), -5, dtype=np.float32)
    masks[0, :, :4] = 5
    masks[1, :, 4:] = 5
    masks[2, 2, 2] = 6
    result = run([0, 1, 2], masks, (32, 32), (8, 8))
    assert [(segment.label, segment.area) for segment in result.segments] == [(0, 32), (1, 32)]
    assert (result.id_map[:, :4] == 1).all()


def test_queries_below_the_threshold_or_of_no_object_do_not_take_part() -> None:
    result = run([0, CLASSES, 2], halves(), (32, 48), (32, 48), scores=[0.9, 0.9, 0.4])
    assert [segment.label for segment in result.segments] == [0]
    assert result.segments[0].area == 32 * 48


def test_a_query_whose_best_class_is_no_object_does_not_take_part_at_a_low_threshold() -> None:
    logits = np.log(np.array([[0.3, 0.1, 0.6]], dtype=np.float32))
    result = panoptic(seen(logits, halves()[:1]), (32, 48), (32, 48), CATEGORIES[:2], 0.2, STRIDE)
    assert result.segments == ()


def test_nothing_kept_is_void_everywhere() -> None:
    no_masks = np.zeros((0, 8, 12), dtype=np.float32)
    logits = logits_of([0, 1], [0.9, 0.9])
    result = panoptic(seen(logits, no_masks), (32, 48), (20, 30), CATEGORIES, 0.5, STRIDE)
    assert result.segments == ()
    np.testing.assert_array_equal(result.id_map, np.zeros((20, 30), dtype=np.int32))


@pytest.mark.parametrize("orig_size", [(1, 1), (2, 2), (1, 4)])
def test_an_image_of_four_pixels_has_no_segment_that_counts(orig_size: Size) -> None:
    result = run([0], halves()[:1], (32, 48), orig_size)
    check_consistent(result, orig_size)
    assert result.segments == ()


def test_masks_belong_to_the_queries_of_the_index() -> None:
    logits = logits_of([0, 1, 2, 3, 4], [0.9] * 5)
    result = panoptic(seen(logits, halves(), [1, 3, 4]), (32, 48), (32, 48), CATEGORIES, 0.5, STRIDE)
    assert [segment.label for segment in result.segments] == [1, 3, 4]
    assert [int(result.id_map[0, x]) for x in (0, 20, 47)] == [1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_finite_are_an_error(bad: float) -> None:
    masks = halves()
    masks[1, 3, 3] = bad
    with pytest.raises(OutputError, match="mask logit"):
        run([0, 1, 2], masks, (32, 48), (32, 48))
    logits = logits_of([0, 1, 2], [0.9] * 3)
    # A query that the network gives no mask for is looked at too: NaN exceeds no threshold.
    logits[2, 0] = bad
    with pytest.raises(OutputError, match="logit"):
        panoptic(seen(logits, halves()[:1]), (32, 48), (32, 48), CATEGORIES, 0.5, STRIDE)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 5), (1, 1)])
def test_extreme_shapes_are_segmented(size: Size) -> None:
    network = (1, 1333) if size[0] < size[1] else (1333, 1)
    masks = np.zeros((1, *cells_of(network)), dtype=np.float32)
    result = run([4], masks, network, size)
    check_consistent(result, size)
    assert sum(segment.area for segment in result.segments) == (size[0] * size[1] if size != (1, 1) else 0)


def test_the_published_image_of_one_stuff_class_is_one_segment(parity: dict[str, NDArray[Any]]) -> None:
    # All queries kept for image 1 are of one stuff class, so their masks do not matter: the result is one
    # segment.
    height, width = parity["image_1"].shape[:2]
    kept = parity["solo_1_kept"]
    masks = np.random.default_rng(0).normal(size=(len(kept), *cells_of((height, width)))).astype(np.float32)
    outputs = seen(parity["solo_1_pred_logits"], masks, kept.tolist())
    result = panoptic(outputs, (height, width), (2 * height, 2 * width), PARITY_CATEGORIES, 0.5, 4)
    published = json.loads(str(parity["solo_1_panoptic_info"]))
    found = [{"id": s.id - 1, "isthing": s.isthing, "category_id": s.label, "area": s.area} for s in result.segments]
    assert found == published
    np.testing.assert_array_equal(result.id_map - 1, parity["solo_1_panoptic_id"])


def parity_result(parity: dict[str, NDArray[Any]], queries: list[int]) -> PanopticResult:
    """Image 0 with only these of the first 12 queries, whose masks are in the parity data."""
    height, width = parity["image_0"].shape[:2]
    outputs = seen(parity["solo_0_pred_logits"], parity["solo_0_pred_masks"][queries], queries)
    return panoptic(outputs, (height, width), (2 * height, 2 * width), PARITY_CATEGORIES, 0.5, 4)


def test_the_published_result_is_that_of_three_queries_of_fifty_four(parity: dict[str, NDArray[Any]]) -> None:
    """Where the published implementation forgets to merge.

    For image 0 it keeps 54 queries: two things (0 and 86) and 52 of one stuff class (2 is the first). It
    merges the 52 in its first round, finds 51 of them without a pixel, drops those as small, and takes the
    argmax again, now of three masks. So wherever its result is query 0 or 2, that one has the higher of just
    these two masks.
    """
    published = parity["solo_0_panoptic_id"]
    height, width = parity["image_0"].shape[:2]
    found = parity_result(parity, [0, 2]).id_map - 1
    either = published < 2
    agree = found == published
    # Where they differ, the two masks are equal to within float32 rounding.
    planes = torch.nn.functional.interpolate(
        torch.from_numpy(parity["solo_0_pred_masks"][[0, 2]])[:, None], (height, width), mode="bilinear"
    )
    gap = (planes[0, 0] - planes[1, 0]).abs().numpy().repeat(2, axis=0).repeat(2, axis=1)
    assert either.mean() > 0.7
    assert agree[either].mean() > 0.997
    assert gap[either & ~agree].max() < 1e-6


def test_merged_stuff_keeps_the_pixels_that_the_published_result_gives_away(
    parity: dict[str, NDArray[Any]],
) -> None:
    """With only four more of the 52 stuff queries, stuff holds over half of what the published result calls
    thing 0.
    """
    published = parity["solo_0_panoptic_id"]
    result = parity_result(parity, [0, 2, 3, 5, 7, 9])
    assert [(segment.label, segment.isthing) for segment in result.segments] == [(18, True), (111, False)]
    thing = published == 0
    assert (result.id_map[thing] == 2).mean() > 0.5
    # Nothing goes the other way: more stuff queries can only win more pixels for stuff.
    stuff = published == 1
    assert (result.id_map[stuff] == 2).mean() > 0.999


def crowd(count: int) -> tuple[Floats, Floats]:
    """Logits and masks of `count` confident queries on a 200 x 267 grid."""
    labels = [query % CLASSES for query in range(count)]
    ys, xs = np.mgrid[:200, :267]
    rng = np.random.default_rng(0)
    centers = rng.uniform(0, 1, (count, 2)) * (200, 267)
    masks = [8 - ((ys - y) ** 2 + (xs - x) ** 2) / 900 for y, x in centers]
    return logits_of(labels, [0.9] * count), np.stack(masks).astype(np.float32)


@pytest.mark.parametrize("orig_size", [(800, 1066), (3000, 4000)])
def test_memory_is_that_of_the_networks_size_whatever_the_images(orig_size: Size) -> None:
    logits, masks = crowd(60)
    tracemalloc.start()
    try:
        panoptic(seen(logits, masks), (800, 1066), orig_size, CATEGORIES, 0.5, STRIDE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # All masks at the network's size would be 205 MB, and one byte for each of the photo's pixels 12 MB.
    assert peak < masks.nbytes + 12e6


def test_where_no_query_is_of_the_wanted_classes_no_mask_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, masks = crowd(5)
    monkeypatch.setattr("model.runtime.answers.panoptic.winners", None)
    result = panoptic(seen(logits, masks), (800, 1066), (60, 80), CATEGORIES, 0.5, STRIDE, {6})
    assert result.segments == ()
    assert result.ids.shape == (60, 80)
