"""A class head for other classes: rows of classes that keep their name are kept, the others are fresh."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from model.categories.coco import UNNAMED
from model.runtime.categories import Category

NAMES_SHOWN = 12


def rows_by_name(found: Sequence[Category], wanted: Sequence[Category]) -> dict[int, int]:
    """For each class index of `wanted` that has a namesake in `found`, the class index there.

    Upper and lower case are the same. A name that several classes share stands for them in their order, so no class
    is a namesake twice.
    """
    indices: dict[str, list[int]] = defaultdict(list)
    for index, category in enumerate(found):
        indices[_plain(category)].append(index)
    rows: dict[int, int] = {}
    for index, category in enumerate(wanted):
        if namesakes := indices[_plain(category)]:
            rows[index] = namesakes.pop(0)
    return rows


def adapted(trained: Tensor, fresh: Tensor, rows: Mapping[int, int]) -> Tensor:
    """Weight [wanted + 1, C] or bias [wanted + 1] of the adapted head, float32.

    `trained` [found + 1, ...] is of the head to take `rows` from, by the class index in either; `fresh`
    [wanted + 1, ...] is what all the others are. The last row, no-object, means the same in both and is taken too.
    """
    to = torch.tensor([*rows.keys(), len(fresh) - 1])
    of = torch.tensor([*rows.values(), len(trained) - 1])
    return fresh.index_copy(0, to, trained[of])


def describe_classes(
    found: Sequence[Category] | None, wanted: Sequence[Category], rows: Mapping[int, int], source: str
) -> list[str]:
    """What becomes of the classes of `source`, a line each for those kept, fresh and left out.

    `found` is None where `source` does not say what its classes are called.
    """
    if found is None:
        return [f"classes: all {len(wanted)} fresh, because {source} does not say what its own are called"]
    kept = [category.name for index, category in enumerate(wanted) if index in rows]
    fresh = [category.name for index, category in enumerate(wanted) if index not in rows]
    taken = set(rows.values())
    left = [c.name for index, c in enumerate(found) if index not in taken and c.name != UNNAMED]
    lines = (("kept, by name", kept), ("fresh", fresh), (f"left out of {source}", left))
    return [f"classes {what}: {_listed(names)}" for what, names in lines if names]


def _plain(category: Category) -> str:
    return category.name.strip().casefold()


def _listed(names: Sequence[str]) -> str:
    """The number of names and the first of them, which is what fits a line."""
    more = len(names) - NAMES_SHOWN
    return f"{len(names)} ({', '.join(names[:NAMES_SHOWN])}{f' and {more} more' if more > 0 else ''})"
