"""How often pictures with rare classes are shown: repeat-factor sampling (LVIS, arXiv:1908.03195, appendix B)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.data.formats.objects import Objects


def repeat_factors(objects: Objects, threshold: float) -> NDArray[np.float64]:
    """How many times each picture is to be shown an epoch, in the mean: float64 [pictures], 1 or more.

    A class in a fraction f of the pictures asks for sqrt(threshold / f) times, and a picture follows its rarest class.
    """
    pictures = len(objects.starts) - 1
    pairs = np.unique(np.stack([objects.labels, objects.pictures]), axis=1)  # each class once a picture
    fractions = np.bincount(pairs[0]) / pictures
    factors = np.ones(pictures)
    np.maximum.at(factors, pairs[1], np.sqrt(threshold / fractions[pairs[0]]))
    return factors


def repeated(factors: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Pictures of an epoch in their order, each its factor's whole number of times, or once more, as it is drawn.

    There are `epoch_length(factors)` in every epoch: places at equal distances in the sum of all factors.
    """
    ends = np.cumsum(factors)
    count = epoch_length(factors)
    places = (np.arange(count) + rng.random()) * (ends[-1] / count)
    return np.minimum(np.searchsorted(ends, places, side="right"), len(factors) - 1)


def epoch_length(factors: NDArray[np.float64]) -> int:
    """How many pictures are shown an epoch, those that come again counted again."""
    return int(np.ceil(factors.sum()))
