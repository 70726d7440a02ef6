"""Which classes are meant by words."""

from __future__ import annotations

import pytest

from model.runtime.categories import Category, classes_meant_by

COLOR = (1, 2, 3)
CATEGORIES = (
    Category(1, "person", True, COLOR),
    Category(7, "hot dog", True, COLOR),
    Category(9, "3", False, COLOR),
    Category(3, "N/A", True, COLOR),
    Category(12, "N/A", True, COLOR),
    Category(13, "salt", True, COLOR),
    Category(14, "Salt, pepper ", True, COLOR),
    Category(15, "", True, COLOR),
)


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("person", {0}),
        ("Person , HOT DOG", {0, 1}),
        ("7,1,7", {0, 1}),
        ("3", {2}),  # a name comes before an id
        ("n/a", {3, 4}),
        ("hot   Dog", {1}),
        ("salt,person", {0, 5}),
        ("salt,PEPPER", {6}),
        ("person,salt , pepper,salt", {0, 5, 6}),
    ],
)
def test_a_word_is_a_name_or_an_id(words: str, meant: set[int]) -> None:
    assert classes_meant_by(CATEGORIES, words) == meant


@pytest.mark.parametrize("words", ["dog", "person,dog", "", "person,", "07", "-1", "1.0", "hotdog", "pepper"])
def test_a_word_that_is_no_class_is_named(words: str) -> None:
    with pytest.raises(ValueError, match=f"no class {words.split(',')[-1]!r}"):
        classes_meant_by(CATEGORIES, words)
