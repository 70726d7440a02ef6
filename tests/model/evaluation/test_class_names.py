"""Which classes of model and data are the same."""

from __future__ import annotations

from dataclasses import replace

from model.evaluation.class_names import with_ids_of_data
from tests.model.evaluation.scenes import CAT, CATEGORIES, DOG, SKY


def test_classes_of_equal_ids_are_the_same_and_other_names_are_pointed_out() -> None:
    assert with_ids_of_data(CATEGORIES, CATEGORIES) == (CATEGORIES, [])
    some = (replace(CAT, name="Cat"), replace(DOG, id=99, name="wolf"))
    assert with_ids_of_data(some, CATEGORIES) == (
        some,
        [
            "not in the data, so that finding them is not judged: wolf",
            "not known to the model, so that they can only be missed: dog, sky, sea",
        ],
    )
    unnamed = (*CATEGORIES, replace(SKY, id=12, name="N/A"))
    assert with_ids_of_data(unnamed, CATEGORIES) == (unnamed, [])
    renamed = (replace(CAT, name="horse"), replace(SKY, name="fog"))
    same, (line, *_) = with_ids_of_data(renamed, CATEGORIES)
    assert same == renamed
    assert "category 7 is 'horse' in the model and 'cat' in the data, and 1 more differ" in line


def test_classes_that_are_numbered_otherwise_are_the_same_by_name() -> None:
    model = (replace(CAT, id=0), replace(DOG, id=7), replace(SKY, id=8, name="moon"))
    same, (line, *others) = with_ids_of_data(model, CATEGORIES)
    assert others == [
        "not in the data, so that finding them is not judged: moon",
        "not known to the model, so that they can only be missed: sky, sea",
    ]
    assert [category.id for category in same[:2]] == [CAT.id, DOG.id]
    assert same[2].id not in {category.id for category in CATEGORIES}, "no id of the data is left to another class"
    assert "by name, as ids differ: 'cat' is 0 in the model and 7 in the data" in line


def test_a_name_that_the_data_has_twice_is_its_first() -> None:
    data = (CAT, replace(CAT, id=99))
    assert with_ids_of_data((CAT,), data)[0] == (CAT,)
    assert with_ids_of_data((replace(CAT, id=0),), data)[0] == (CAT,)
