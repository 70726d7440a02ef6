"""Repeat-factor sampling: how often, how evenly, and in every epoch as many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.collate import AspectRatioBatchSampler
from model.data.formats.objects import BoxXywh, Objects
from model.data.repeats import epoch_length, repeat_factors, repeated

BOX: BoxXywh = (0.0, 0.0, 1.0, 1.0)


def test_a_picture_follows_its_rarest_class() -> None:
    # Class 0 is in all four pictures, class 1 in one of them, in which it is twice; the last has it not.
    found = [[(0, BOX), (1, BOX), (1, BOX)], [(0, BOX)], [(0, BOX)], [(0, BOX)]]
    assert repeat_factors(Objects.gather(found, 0), 1.0).tolist() == [2, 1, 1, 1]
    assert repeat_factors(Objects.gather(found, 0), 0.25).tolist() == [1, 1, 1, 1]
    assert repeat_factors(Objects.gather([*found, []], 0), 0.8).tolist() == pytest.approx([2, 1, 1, 1, 1])


@given(factors=st.lists(st.floats(1, 5), min_size=1, max_size=30), seed=st.integers(0, 2**32))
def test_each_picture_comes_as_often_as_its_factor_says_and_an_epoch_has_one_length(
    factors: list[float], seed: int
) -> None:
    times = np.array(factors)
    shown = repeated(times, np.random.default_rng(seed))
    assert len(shown) == epoch_length(times)
    counts = np.bincount(shown, minlength=len(factors))
    # The length is rounded up, which stretches each factor by less than one part in the number of pictures.
    assert (counts >= np.floor(times)).all()
    assert (counts <= np.ceil(times * epoch_length(times) / times.sum() + 1e-6)).all()


def test_batches_of_repeated_pictures_are_the_same_after_an_interruption() -> None:
    factors = np.array([1.0, 2.5, 1.0, 1.0, 3.0])
    sizes = [(10, 10)] * 5

    def batches(start: int) -> list[list[int]]:
        sampler = AspectRatioBatchSampler(sizes, 2, seed=4, drop_last=True, start=start, factors=factors)
        return [[draw.index for draw in batch] for batch in sampler]

    assert len(batches(0)) == 4
    assert batches(0)[2:] == batches(2)
    assert [index for batch in batches(0) for index in batch].count(4) >= 2
