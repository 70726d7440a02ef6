"""What each class weighs in the loss of the classes, as `--class-weights` says it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from model.runtime.categories import Category
from model.runtime.nearest import did_you_mean

BALANCED = "balanced"


def class_weights(words: Sequence[str], categories: Sequence[Category], counts: Sequence[int]) -> list[float] | None:
    """The weight of each class, by index; None where all are alike.

    Args:
        words: `balanced`, or NAME=WEIGHT of single classes, which may follow it.
        categories: of the data.
        counts: how many objects each class has. Balanced weights are in inverse proportion to these and 1 in the mean
            of all objects, so that no-object weighs as much beside them as ever; a class without an object has 1.

    Raises ValueError for a word that is neither, a name that is no class, and a weight that is none.
    """
    if not words:
        return None
    weights = [1.0] * len(categories)
    if BALANCED in words:
        found = sum(count > 0 for count in counts)
        weights = [sum(counts) / (found * count) if count else 1.0 for count in counts]
    names = [category.name for category in categories]
    for word in words:
        if word != BALANCED:
            name, weight = _parsed(word)
            if name not in names:
                raise ValueError(f"--class-weights {word}: there is no class {name!r}{did_you_mean(name, names)}")
            weights[names.index(name)] = weight
    return weights


def _parsed(word: str) -> tuple[str, float]:
    name, separator, text = word.rpartition("=")
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not separator or not 0 <= weight < math.inf:
        raise ValueError(f"--class-weights {word} is neither {BALANCED} nor NAME=WEIGHT with a weight of 0 or more")
    return name, weight
