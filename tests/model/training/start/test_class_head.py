"""Which rows of a class head go where when the classes change."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.categories.coco import detection_categories
from model.categories.names import named_category
from model.runtime.categories import Category
from model.training.start.class_head import adapted, describe_classes, rows_by_name

NAMES = st.lists(st.sampled_from(["cat", "Cat", "dog", "owl", "fox", "N/A", "tree"]), max_size=8)


def named(*names: str) -> tuple[Category, ...]:
    return tuple(named_category(index, name) for index, name in enumerate(names))


def test_classes_are_found_by_name_whatever_their_index_and_case() -> None:
    assert rows_by_name(named("person", "Dog", "cat"), named("CAT", "zebra", "dog ")) == {0: 2, 2: 1}


def test_cocos_names_are_found_by_their_ids() -> None:
    coco = detection_categories()
    assert rows_by_name(coco, named("zebra", "sofa", "person")) == {0: 24, 2: 1}


@given(NAMES, NAMES)
def test_a_row_is_given_to_one_namesake_only_and_as_many_as_there_are(found: list[str], wanted: list[str]) -> None:
    rows = rows_by_name(named(*found), named(*wanted))
    assert len(set(rows.values())) == len(rows)
    assert all(wanted[to].casefold() == found[of].casefold() for to, of in rows.items())
    for name in {name.casefold() for name in found + wanted}:
        kept = [to for to in rows if wanted[to].casefold() == name]
        counts = [[n.casefold() for n in names].count(name) for names in (found, wanted)]
        assert len(kept) == min(counts)


@given(NAMES)
def test_the_same_classes_keep_their_rows(names: list[str]) -> None:
    categories = named(*names)
    assert rows_by_name(categories, categories) == {index: index for index in range(len(names))}


@given(NAMES, NAMES)
def test_rows_of_namesakes_and_of_no_object_are_kept_and_all_others_are_fresh(
    found: list[str], wanted: list[str]
) -> None:
    trained, fresh = torch.randn(len(found) + 1, 3), torch.randn(len(wanted) + 1, 3)
    rows = rows_by_name(named(*found), named(*wanted))
    before = fresh.clone()
    for head, (old, new) in {"weight": (trained, fresh), "bias": (trained[:, 0], fresh[:, 0])}.items():
        result = adapted(old, new, rows)
        assert result.shape == new.shape, head
        assert torch.equal(result[-1], old[-1])
        for index in range(len(wanted)):
            assert torch.equal(result[index], old[rows[index]] if index in rows else new[index])
    assert torch.equal(fresh, before)


def test_people_are_told_what_is_kept_fresh_and_left_out() -> None:
    found, wanted = named("cat", "N/A", "owl"), named("cow", "cat")
    assert describe_classes(found, wanted, {1: 0}, "a.pth") == [
        "classes kept, by name: 1 (cat)",
        "classes fresh: 1 (cow)",
        "classes left out of a.pth: 1 (owl)",
    ]
    assert describe_classes(None, wanted, {}, "a.pth") == [
        "classes: all 2 fresh, because a.pth does not say what its own are called"
    ]


def test_a_long_list_of_classes_is_cut() -> None:
    (line,) = describe_classes(detection_categories(), named(), {}, "a.pth")
    assert line.startswith("classes left out of a.pth: 80 (person, bicycle, ")
    assert line.endswith(" and 68 more)")
