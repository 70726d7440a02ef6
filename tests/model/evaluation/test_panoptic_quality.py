"""Panoptic quality is panopticapi's, and torchmetrics' where the two have the same rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torchmetrics.detection import PanopticQuality

from model.evaluation.average_precision import NOTHING
from model.evaluation.panoptic_quality import (
    FIGURE_SUFFIXES,
    MatchCounts,
    PanopticFigures,
    PanopticMap,
    count_segments,
    panoptic_quality,
)
from tests.model.evaluation.scenes import CAT, CATEGORIES, DOG, SEA, SKY

Picture = tuple[PanopticMap, PanopticMap]  # annotated, found
IDS = [category.id for category in CATEGORIES]


def figures_of(*pictures: Picture) -> PanopticFigures:
    return panoptic_quality([count_segments(*picture, IDS) for picture in pictures], CATEGORIES)


# An independent evaluator: panopticapi's rule, pixel by pixel.


def by_panopticapis_rule(pictures: Sequence[Picture]) -> dict[str, float]:
    """What panopticapi's evaluation.py would answer, but for -1 where it would divide by zero."""
    tally: dict[int, Counter[str]] = defaultdict(Counter)
    ious: dict[int, list[float]] = defaultdict(list)
    for truth, found in pictures:
        pairs = Counter(zip(truth.id_map.ravel().tolist(), found.id_map.ravel().tolist(), strict=True))
        true_area = Counter(truth.id_map.ravel().tolist())
        found_area = Counter(found.id_map.ravel().tolist())
        partner: dict[int, int] = {}
        for (t, f), shared in pairs.items():
            if t == 0 or f == 0 or t in truth.crowds or truth.category_of[t] != found.category_of[f]:
                continue
            iou = shared / (true_area[t] + found_area[f] - shared - pairs[0, f])
            if iou > 0.5:
                partner[t] = f
                tally[truth.category_of[t]]["tp"] += 1
                ious[truth.category_of[t]].append(iou)
        crowd_of_category: dict[int, int] = {}  # the last one wins
        for t, category in truth.category_of.items():
            if t in truth.crowds:
                crowd_of_category[category] = t
            elif t not in partner:
                tally[category]["fn"] += 1
        for f, category in found.category_of.items():
            if f in partner.values():
                continue
            excused = pairs[0, f] + pairs[crowd_of_category.get(category, -1), f]
            if excused / found_area[f] <= 0.5:
                tally[category]["fp"] += 1
    figures: dict[str, float] = {}
    for suffix, kinds in FIGURE_SUFFIXES:
        rows = []
        for each in CATEGORIES:
            counts = tally[each.id]
            weight = counts["tp"] + counts["fp"] / 2 + counts["fn"] / 2
            if each.isthing in kinds and weight:
                total = sum(ious[each.id], 0.0)
                rows.append((total / weight, total / counts["tp"] if counts["tp"] else 0.0, counts["tp"] / weight))
        means = np.mean(rows, axis=0).tolist() if rows else [NOTHING] * 3
        figures |= {f"{name}{suffix}": mean for name, mean in zip(("PQ", "SQ", "RQ"), means, strict=True)}
    return figures


@st.composite
def annotated(draw: st.DrawFn) -> PanopticMap:
    """Blocks of segments and void; there may be nothing at all, and several crowds of a category."""
    blocks = np.array(draw(st.lists(st.integers(0, 5), min_size=12, max_size=12)), np.int32).reshape(3, 4)
    ids = draw(st.permutations(sorted(set(blocks.ravel().tolist()) - {0})))
    category_of = {i: draw(st.sampled_from(IDS)) for i in ids}
    crowds = frozenset(i for i in ids if draw(st.sampled_from([False, False, True])))
    return PanopticMap(blocks.repeat(2, axis=0).repeat(2, axis=1), category_of, crowds)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """An annotation, and an answer that is like it but for some pixels (halves of segments too) and categories."""
    truth = draw(annotated())
    # Each row of pixels may be another one's, so that ties and halves are frequent.
    rows = draw(st.lists(st.integers(0, 5), min_size=6, max_size=6))
    id_map = np.where(
        np.array(draw(st.lists(st.booleans(), min_size=6, max_size=6)))[:, None], truth.id_map[rows], truth.id_map
    )
    for _ in range(draw(st.integers(0, 6))):
        y, x = draw(st.integers(0, 5)), draw(st.integers(0, 7))
        id_map[y, x:] = draw(st.integers(0, 7))
    if draw(st.integers(0, 9)) == 0:
        id_map = np.zeros_like(id_map)  # nothing was found
    ids = sorted(set(id_map.ravel().tolist()) - {0})
    category_of = {
        i: truth.category_of.get(i, CAT.id) if draw(st.integers(0, 3)) else draw(st.sampled_from(IDS)) for i in ids
    }
    return truth, PanopticMap(id_map.astype(np.int32), category_of)


@settings(max_examples=300, deadline=None)
@given(st.lists(pictures(), min_size=1, max_size=3))
def test_figures_are_those_of_panopticapis_rule(drawn: list[Picture]) -> None:
    assert figures_of(*drawn).total == pytest.approx(by_panopticapis_rule(drawn), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(pictures(), min_size=1, max_size=3))
def test_figures_are_those_of_torchmetrics_where_the_rules_agree(drawn: list[Picture]) -> None:
    """torchmetrics knows no crowd, joins stuff of one category, and excuses what the answer leaves void."""
    things = {category.id for category in CATEGORIES if category.isthing}
    theirs = PanopticQuality(things, set(IDS) - things, allow_unknown_preds_category=True, return_sq_and_rq=True)
    agreed = []
    for truth, found in drawn:
        truth = PanopticMap(truth.id_map, truth.category_of)
        # The void of the answer becomes a thing, and of each stuff category there is one segment.
        found = PanopticMap(
            np.where(found.id_map == 0, 99, found.id_map).astype(np.int32), {99: DOG.id, **found.category_of}
        )
        agreed.append((_joined(truth, things), _joined(found, things)))
        theirs.update(*(_colored(segmentation)[None] for segmentation in reversed(agreed[-1])))
    figures = figures_of(*agreed).total
    expected = theirs.compute().tolist()
    assume(figures["PQ"] != NOTHING)  # theirs is then not a number
    assert [figures[name] for name in ("PQ", "SQ", "RQ")] == pytest.approx(expected, abs=1e-6)


def _joined(segmentation: PanopticMap, things: set[int]) -> PanopticMap:
    one_of = {category: i for i, category in segmentation.category_of.items()}
    id_map = segmentation.id_map.copy()
    for i, category in segmentation.category_of.items():
        if category not in things:
            id_map[segmentation.id_map == i] = one_of[category]
    present = {i: c for i, c in segmentation.category_of.items() if (id_map == i).any()}
    return PanopticMap(id_map, present)


def _colored(segmentation: PanopticMap) -> torch.Tensor:
    """torchmetrics' pairs of category and instance; a category that nobody knows is void."""
    category_of = np.full(256, 255)
    category_of[list(segmentation.category_of)] = list(segmentation.category_of.values())
    return torch.from_numpy(np.stack([category_of[segmentation.id_map], segmentation.id_map], axis=-1))


# Known answers.


def test_pixels_of_void_count_neither_for_nor_against() -> None:
    truth = PanopticMap(np.array([[1, 1, 0, 0]], np.int32), {1: CAT.id})
    exact = figures_of((truth, PanopticMap(np.array([[5, 5, 5, 5]], np.int32), {5: CAT.id}))).total
    assert exact["PQ"] == 1
    # Two more segments: one mostly over void is excused, one that is half over void is not.
    excused = figures_of((truth, PanopticMap(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: CAT.id}))).total
    assert excused["PQ"] == 1
    half = figures_of((truth, PanopticMap(np.array([[5, 6, 6, 0]], np.int32), {5: CAT.id, 6: DOG.id}))).total
    assert half["PQ_th"] == 0, "half of the cat is no match, and the dog is wrong"


def test_what_the_answer_leaves_void_counts_against_it() -> None:
    truth = PanopticMap(np.array([[1, 1, 1, 1]], np.int32), {1: SKY.id})
    found = figures_of((truth, PanopticMap(np.array([[5, 5, 5, 0]], np.int32), {5: SKY.id}))).total
    assert (found["PQ"], found["SQ"], found["RQ"]) == (0.75, 0.75, 1)
    nothing = figures_of((truth, PanopticMap(np.zeros((1, 4), np.int32), {}))).total
    assert (nothing["PQ"], nothing["RQ_st"]) == (0, 0)
    assert nothing["PQ_th"] == NOTHING, "no thing is annotated or found"


def test_a_segment_over_a_crowd_of_its_class_is_excused() -> None:
    truth = PanopticMap(np.array([[1, 1, 2, 2]], np.int32), {1: CAT.id, 2: DOG.id}, frozenset({2}))
    own = figures_of((truth, PanopticMap(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: DOG.id}))).total
    assert (own["PQ"], own["RQ"]) == (1, 1), "neither found nor wrong: dogs do not count"
    other = figures_of((truth, PanopticMap(np.array([[5, 5, 6, 6]], np.int32), {5: CAT.id, 6: CAT.id}))).total
    assert other["RQ"] == pytest.approx(1 / 1.5)


def test_of_several_crowds_of_a_class_the_last_listed_excuses() -> None:
    id_map = np.array([[1, 1, 2, 2]], np.int32)
    found = PanopticMap(np.array([[5, 5, 5, 0]], np.int32), {5: CAT.id})
    for order, excused in (((1, 2), False), ((2, 1), True)):
        truth = PanopticMap(id_map, dict.fromkeys(order, CAT.id), frozenset({1, 2}))
        assert figures_of((truth, found)).total["PQ"] == (NOTHING if excused else 0)


def test_half_of_the_union_is_no_match() -> None:
    truth = PanopticMap(np.array([[1, 1, 1, 1]], np.int32), {1: CAT.id})
    half = figures_of((truth, PanopticMap(np.array([[5, 5, 0, 0]], np.int32), {5: CAT.id}))).total
    assert half["PQ"] == 0


def test_an_annotated_id_that_no_segment_has_is_void() -> None:
    truth = PanopticMap(np.array([[1, 1, 9, 9]], np.int32), {1: CAT.id})
    found = PanopticMap(np.array([[5, 5, 5, 5]], np.int32), {5: CAT.id})
    assert figures_of((truth, found)).total["PQ"] == 1


def test_a_found_category_that_the_data_do_not_have_is_left_out() -> None:
    truth = PanopticMap(np.array([[1, 1, 1, 2]], np.int32), {1: CAT.id, 2: SEA.id})
    found = PanopticMap(np.array([[5, 5, 5, 6]], np.int32), {5: CAT.id, 6: 999})
    figures = figures_of((truth, found))
    assert figures.per_category[CAT.id] == MatchCounts(iou=1.0, matched=1)
    assert figures.per_category[SEA.id] == MatchCounts(missed=1)
    assert figures.total["PQ"] == 0.5


def test_pictures_without_anything_change_nothing() -> None:
    truth = PanopticMap(np.array([[1, 1, 1, 2]], np.int32), {1: CAT.id, 2: SEA.id})
    found = PanopticMap(np.array([[5, 5, 0, 6]], np.int32), {5: CAT.id, 6: SEA.id})
    empty = PanopticMap(np.zeros((2, 2), np.int32), {})
    assert figures_of((truth, found), (empty, empty)) == figures_of((truth, found))
    assert set(figures_of((empty, empty)).total.values()) == {NOTHING}
