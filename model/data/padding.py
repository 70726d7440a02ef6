"""How much of what the network computes is padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from model.data.collate import AspectRatioBatchSampler, Draw
from model.runtime.preprocess import CANVAS_MULTIPLE, ResizeRule, round_up


class PaddingRatios(NamedTuple):
    """Share of canvas pixels that are padding, 0 to 1, with batches of like aspect ratio and with random ones."""

    grouped: float
    ungrouped: float

    def __str__(self) -> str:
        return f"padding: {self.grouped:.1%} of the canvas ({self.ungrouped:.1%} without grouping by aspect ratio)"


def padding_ratio(
    sizes: Sequence[tuple[int, int]], rules: Sequence[ResizeRule], batches: Iterable[Sequence[Draw]]
) -> float:
    """Share of the canvases' pixels that are padding, 0 to 1.

    Args:
        sizes: (height, width) in pixels of every picture, before it is resized.
        rules: each draw takes one, chosen by its seed; crops are not considered.
        batches: what shares a canvas.

    Raises ValueError if there is no batch.
    """
    valid = total = 0
    for batch in batches:
        resized = [rules[draw.seed % len(rules)].size(*sizes[draw.index]) for draw in batch]
        height, width = (round_up(max(sides), CANVAS_MULTIPLE) for sides in zip(*resized, strict=True))
        valid += sum(h * w for h, w in resized)
        total += len(batch) * height * width
    if not total:
        raise ValueError("there is no batch whose padding could be measured")
    return 1 - valid / total


def padding_ratios(
    sizes: Sequence[tuple[int, int]], rules: Sequence[ResizeRule], batch_size: int, seed: int = 0
) -> PaddingRatios:
    """What grouping by aspect ratio saves over an epoch of batches that share one canvas each.

    Raises ValueError if there is no picture or no rule.
    """
    if not rules:
        raise ValueError("padding depends on a resize rule, and there is none")
    # Where all pictures are told to be alike, any of them may be batched together.
    alike = [(1, 1)] * len(sizes)
    samplers = (AspectRatioBatchSampler(seen, batch_size, seed=seed) for seen in (sizes, alike))
    return PaddingRatios(*(padding_ratio(sizes, rules, sampler) for sampler in samplers))
