"""Weights of classes, as a person says them."""

from __future__ import annotations

import pytest

from model.runtime.categories import Category
from model.training.class_weights import class_weights

CATEGORIES = tuple(Category(id_, name, True, (0, 0, 0)) for id_, name in enumerate(("cat", "dog", "a=b"), start=1))


def test_classes_weigh_alike_unless_told_otherwise() -> None:
    assert class_weights((), CATEGORIES, [10, 5, 1]) is None
    assert class_weights(("dog=2.5", "a=b=0"), CATEGORIES, [10, 5, 1]) == [1, 2.5, 0]


def test_balanced_weights_follow_how_seldom_a_class_is_and_are_one_in_the_mean_of_objects() -> None:
    counts = [90, 10, 0]
    weights = class_weights(("balanced",), CATEGORIES, counts)
    assert weights == pytest.approx([100 / 180, 5, 1])
    assert sum(weight * count for weight, count in zip(weights or [], counts, strict=True)) == pytest.approx(100)
    assert class_weights(("balanced", "dog=3"), CATEGORIES, counts) == pytest.approx([100 / 180, 3, 1])


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("bird=2", "there is no class 'bird'"),
        ("balance", "is neither balanced nor NAME=WEIGHT"),
        ("dog=-1", "is neither balanced nor NAME=WEIGHT with a weight of 0 or more"),
        ("dog=inf", "is neither"),
        ("dog=", "is neither"),
    ],
)
def test_what_is_no_weight_is_refused(word: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        class_weights((word,), CATEGORIES, [1, 1, 1])
