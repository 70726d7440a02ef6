"""Panoptic quality (Kirillov et al., 2019, arXiv:1801.00868), counted as COCO's panopticapi counts it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.id_png import read_ids
from model.evaluation.average_precision import NOTHING
from model.runtime.categories import Category

# Suffix of a figure, and the values of isthing of the categories that it is the mean of.
FIGURE_SUFFIXES = (("", (True, False)), ("_th", (True,)), ("_st", (False,)))


@dataclass(frozen=True)
class PanopticMap:
    """Every pixel's segment. A pixel whose id is not among the segments is void."""

    id_map: NDArray[np.int32]  # [H, W]
    category_of: Mapping[int, int]  # segment id to category id, in the order of the annotation
    crowds: frozenset[int] = field(default=frozenset())  # ids of annotated regions of many objects


class SegmentAnnotations:
    """The annotated segments of every picture. A crowd is no target for a query, but it is not void either."""

    def __init__(self, data: CocoPanoptic) -> None:
        """Take those of a data set; its id PNGs are read when they are asked for."""
        self._data = data

    def of(self, index: int) -> PanopticMap:
        """The segments of one picture. Raises what `read_ids` does."""
        data = self._data
        segments = data.segments_of(index)
        crowds = frozenset(segment.id for segment in segments if segment.iscrowd)
        category_of = {segment.id: data.categories[segment.label].id for segment in segments}
        return PanopticMap(read_ids(data.segments, data.png(index)), category_of, crowds)


@dataclass(frozen=True)
class MatchCounts:
    """What is summed, over pictures or categories, to give a quality."""

    iou: float = 0.0  # of the matched pairs
    matched: int = 0
    missed: int = 0  # annotated, not found
    wrong: int = 0  # found, not annotated

    def __add__(self, other: MatchCounts) -> MatchCounts:
        return MatchCounts(
            self.iou + other.iou,
            self.matched + other.matched,
            self.missed + other.missed,
            self.wrong + other.wrong,
        )

    @property
    def annotated(self) -> int:
        """Number of annotated objects that count."""
        return self.matched + self.missed

    @property
    def quality(self) -> float:
        """PQ: the IoU of matched pairs, by matched + missed / 2 + wrong / 2. -1 where there is nothing at all."""
        return self.iou / self._denominator if self._denominator else NOTHING

    def figures(self) -> dict[str, float]:
        """PQ, SQ and RQ; PQ is the product of the other two. -1 where there is nothing at all."""
        if not self._denominator:
            return dict.fromkeys(("PQ", "SQ", "RQ"), NOTHING)
        return {
            "PQ": self.quality,
            "SQ": self.iou / max(1, self.matched),
            "RQ": self.matched / self._denominator,
        }

    @property
    def _denominator(self) -> float:
        return self.matched + 0.5 * self.missed + 0.5 * self.wrong


class PanopticFigures(NamedTuple):
    """Every figure is in [0, 1], or -1 where nothing of that kind is annotated or found."""

    total: dict[str, float]  # PQ, SQ, RQ of all categories, of things (`_th`) and of stuff (`_st`)
    per_category: dict[int, MatchCounts]  # of every category id


def panoptic_quality(pictures: Iterable[Mapping[int, MatchCounts]], categories: Sequence[Category]) -> PanopticFigures:
    """Sum the counts of pictures, then average over the categories that were annotated or found."""
    sums = {category.id: MatchCounts() for category in categories}
    for picture in pictures:
        for category_id, counts in picture.items():
            sums[category_id] += counts
    total: dict[str, float] = {}
    for suffix, kinds in FIGURE_SUFFIXES:
        rows = [sums[category.id].figures() for category in categories if category.isthing in kinds]
        for name in ("PQ", "SQ", "RQ"):
            seen = [row[name] for row in rows if row[name] > NOTHING]
            total[f"{name}{suffix}"] = float(np.mean(seen)) if seen else NOTHING
    return PanopticFigures(total, sums)


def count_segments(truth: PanopticMap, found: PanopticMap, categories: Collection[int]) -> dict[int, MatchCounts]:
    """The counts of one picture, by category id; `categories` are the ids that the data set annotates.

    An annotated and a found segment of one category match where their intersection is more than half of their union,
    so no segment has two partners. What the annotation leaves void does not count against a found segment; what the
    answer leaves void does count against it. A crowd is never missed, and excuses found segments of its category that
    lie in it, together with void, by more than half; of several crowds of a category, panopticapi takes the last.

    Found segments of categories that are not annotated in this data set are left out.
    """
    overlap = _Overlap(truth.id_map, found.id_map)
    matches = _matches(truth, found, overlap)
    counts: dict[int, MatchCounts] = defaultdict(MatchCounts)
    for true_id, _, iou in matches:
        counts[truth.category_of[true_id]] += MatchCounts(iou=iou, matched=1)
    matched_true, matched_found = {m[0] for m in matches}, {m[1] for m in matches}
    for true_id, category in truth.category_of.items():
        if true_id not in matched_true and true_id not in truth.crowds:
            counts[category] += MatchCounts(missed=1)
    crowd_of = {category: i for i, category in truth.category_of.items() if i in truth.crowds}
    void = overlap.void(truth)
    for column, found_id in enumerate(overlap.columns):
        found_category = found.category_of.get(found_id)
        if found_category is None or found_category not in categories or found_id in matched_found:
            continue
        excused = void[column] + overlap.shared(crowd_of.get(found_category), column)
        if 2 * excused <= overlap.pixels[:, column].sum():
            counts[found_category] += MatchCounts(wrong=1)
    return dict(counts)


class _Overlap:
    """How many pixels each segment of one map shares with each of another."""

    def __init__(self, first: NDArray[np.int32], second: NDArray[np.int32]) -> None:
        rows, row = np.unique(first, return_inverse=True)
        columns, column = np.unique(second, return_inverse=True)
        pairs = row.ravel() * len(columns) + column.ravel()
        counts = np.bincount(pairs, minlength=len(rows) * len(columns))
        self.rows: list[int] = rows.tolist()  # n ids of the first map
        self.columns: list[int] = columns.tolist()  # m ids of the second
        self.pixels: NDArray[np.int64] = counts.reshape(len(rows), len(columns))  # [n, m]

    def void(self, truth: PanopticMap) -> NDArray[np.int64]:
        """How many pixels of each segment of the second map, [m], the first leaves void."""
        return self.pixels[[row for row, i in enumerate(self.rows) if i not in truth.category_of]].sum(axis=0)

    def shared(self, first_id: int | None, column: int) -> int:
        """Pixels that a segment of the first map, if there is one, shares with one of the second."""
        return int(self.pixels[self.rows.index(first_id), column]) if first_id in self.rows else 0


def _matches(truth: PanopticMap, found: PanopticMap, overlap: _Overlap) -> list[tuple[int, int, float]]:
    """The annotated id, the found id and the IoU of every pair that matches."""
    void = overlap.void(truth)
    matches = []
    for row, column in np.argwhere(overlap.pixels).tolist():
        true_id, found_id = overlap.rows[row], overlap.columns[column]
        category = truth.category_of.get(true_id)
        if category is None or category != found.category_of.get(found_id) or true_id in truth.crowds:
            continue
        shared = int(overlap.pixels[row, column])
        union = int(overlap.pixels[row].sum() + overlap.pixels[:, column].sum() - void[column]) - shared
        if 2 * shared > union:
            matches.append((true_id, found_id, shared / union))
    return matches
