"""Which classes of a model and of a data set are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from model.runtime.categories import Category


def with_ids_of_data(
    of_model: Sequence[Category], of_data: Sequence[Category]
) -> tuple[tuple[Category, ...], list[str]]:
    """The model's categories, by class index, with the ids that the data has for them, and lines for people.

    Classes are the same where their ids are, unless names say that the two number them differently: more of the model's
    classes have a namesake in the data than have it under their own id. Then those of one name are the same.
    """
    name_of = {category.id: _plain(category) for category in of_data}
    id_of = {name: id_ for id_, name in reversed(name_of.items())}  # of equal names, the first
    namesakes = [category for category in of_model if _plain(category) in id_of]
    if len(namesakes) <= sum(name_of.get(category.id) == _plain(category) for category in of_model):
        return tuple(of_model), [*_renamed(of_model, of_data), *_of_one_only(of_model, of_data)]
    moved = next(category for category in namesakes if id_of[_plain(category)] != category.id)
    line = (
        f"classes are matched by name, as ids differ: {moved.name!r} is {moved.id} in the model and "
        f"{id_of[_plain(moved)]} in the data"
    )
    unknown = max(*name_of, *(category.id for category in of_model)) + 1
    ids = [id_of.get(_plain(category), unknown + index) for index, category in enumerate(of_model)]
    same = tuple(replace(category, id=id_) for category, id_ in zip(of_model, ids, strict=True))
    return same, [line, *_of_one_only(same, of_data)]


def _of_one_only(of_model: Sequence[Category], of_data: Sequence[Category]) -> list[str]:
    """Lines for the classes that only one of the two has."""
    ids = {category.id for category in of_model}, {category.id for category in of_data}
    # Published models have outputs for numbers that COCO gave to nothing.
    unjudged = [c.name for c in of_model if c.id not in ids[1] and c.name != "N/A"]
    unknown = [c.name for c in of_data if c.id not in ids[0]]
    lines = [f"not in the data, so that finding them is not judged: {_some(unjudged)}"] if unjudged else []
    return lines + ([f"not known to the model, so that they can only be missed: {_some(unknown)}"] if unknown else [])


def _some(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more classes" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _plain(category: Category) -> str:
    return category.name.strip().casefold()


def _renamed(of_model: Sequence[Category], of_data: Sequence[Category]) -> list[str]:
    """A line where ids that model and data share have other names: they may be other classes."""
    names = {category.id: category.name for category in of_data}
    odd = [c for c in of_model if c.id in names and c.name.casefold() != names[c.id].casefold()]
    if not odd:
        return []
    first = f"category {odd[0].id} is {odd[0].name!r} in the model and {names[odd[0].id]!r} in the data"
    others = f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""
    return [f"classes are matched by id, but {first}{others}"]
