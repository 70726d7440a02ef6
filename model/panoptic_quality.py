"""Panoptic quality (Kirillov et al., 2019, arXiv:1801.00868), counted as COCO's panopticapi counts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.runtime.categories import Category


@dataclass(frozen=True)
class Segmentation:
    """Every pixel's segment. A pixel whose id is not among the segments is void."""

    id_map: NDArray[np.int32]  # [H, W]
    category_of: Mapping[int, int]  # segment id to category id
    crowds: frozenset[int] = field(default=frozenset())  # ids of annotated regions of many objects


@dataclass
class _Counts:
    """What is summed over pictures for a category."""

    iou: float = 0.0  # of the matched pairs
    matched: int = 0
    missed: int = 0  # annotated, not found
    wrong: int = 0  # found, not annotated

    def figures(self) -> tuple[float, float, float]:
        """PQ, SQ and RQ."""
        denominator = self.matched + 0.5 * self.missed + 0.5 * self.wrong
        return self.iou / denominator, self.iou / max(1, self.matched), self.matched / denominator


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


class PanopticQuality:
    """Counts picture by picture, then averages over the categories that were annotated or found.

    An annotated and a found segment of one category match where their intersection is more than half of their union,
    so no segment has two partners. What the annotation leaves void does not count against a found segment; what the
    answer leaves void does count against it.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self._isthing = {category.id: category.isthing for category in categories}
        self._counts = {category.id: _Counts() for category in categories}

    def update(self, truth: Segmentation, found: Segmentation) -> None:
        """Count one picture. Found segments of categories that are not annotated in this data set are left out."""
        overlap = _Overlap(truth.id_map, found.id_map)
        void = overlap.pixels[[row for row, i in enumerate(overlap.rows) if i not in truth.category_of]].sum(0)
        matched_true, matched_found = self._count_matches(truth, found, overlap, void)
        for true_id in set(truth.category_of) - matched_true - truth.crowds:
            self._counts[truth.category_of[true_id]].missed += 1
        for column, found_id in enumerate(overlap.columns):
            category = found.category_of.get(found_id)
            if category not in self._counts or found_id in matched_found:
                continue
            crowds = [i in truth.crowds and truth.category_of[i] == category for i in overlap.rows]
            excused = void[column] + overlap.pixels[crowds, column].sum()
            self._counts[category].wrong += int(2 * excused <= overlap.pixels[:, column].sum())

    def _count_matches(
        self, truth: Segmentation, found: Segmentation, overlap: _Overlap, void: NDArray[np.int64]
    ) -> tuple[set[int], set[int]]:
        """Count the pairs that match, and return the annotated and the found ids in them."""
        matched_true, matched_found = set(), set()
        for row, column in np.argwhere(overlap.pixels).tolist():
            true_id, found_id = overlap.rows[row], overlap.columns[column]
            category = truth.category_of.get(true_id)
            if category is None or category != found.category_of.get(found_id) or true_id in truth.crowds:
                continue
            shared = overlap.pixels[row, column]
            union = overlap.pixels[row].sum() + overlap.pixels[:, column].sum() - shared - void[column]
            if 2 * shared > union:
                self._counts[category].matched += 1
                self._counts[category].iou += float(shared / union)
                matched_true.add(true_id)
                matched_found.add(found_id)
        return matched_true, matched_found

    def figures(self) -> dict[str, float]:
        """PQ, SQ and RQ of all categories, of things (`_th`) and of stuff (`_st`); 0 where there is none."""
        figures: dict[str, float] = {}
        for suffix, kinds in (("", (True, False)), ("_th", (True,)), ("_st", (False,))):
            rows = [
                counts.figures()
                for category, counts in self._counts.items()
                if self._isthing[category] in kinds and counts.matched + counts.missed + counts.wrong
            ]
            means = np.mean(rows, axis=0).tolist() if rows else [0.0, 0.0, 0.0]
            figures |= {f"{name}{suffix}": mean for name, mean in zip(("PQ", "SQ", "RQ"), means, strict=True)}
        return figures
