"""What one class index of the network means to a person."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Category:
    """One class index of the network; a model carries a tuple of these, ordered by class index.

    The index and the id differ on purpose: COCO ids have gaps (1 to 90 for 80 classes), and a network has no
    use for them.
    """

    id: int  # what JSON calls category_id
    name: str
    isthing: bool  # True for countable objects, False for stuff such as sky
    color: tuple[int, int, int]  # RGB, each 0 to 255


def classes_meant_by(categories: Sequence[Category], words: str) -> frozenset[int]:
    """The class indices that are meant by words between commas, each a name or an id.

    Case and the number of spaces do not count. A name may have commas itself. Classes of one name are all meant by it.
    Raises ValueError, naming the word, where a word is no class's.
    """
    named = defaultdict[str, set[int]](set)
    numbered: dict[str, set[int]] = {}
    for index, category in enumerate(categories):
        named[_plain(category.name)].add(index)
        numbered[str(category.id)] = {index}
    most_parts = 1 + max(category.name.count(",") for category in categories)
    parts = words.split(",")
    found = set[int]()
    begin = 0
    while begin < len(parts):
        for end in range(min(len(parts), begin + most_parts), begin, -1):
            word = _plain(",".join(parts[begin:end]))
            if meant := (named.get(word) or numbered.get(word)) if word else None:
                break
        else:
            raise ValueError(f"the model has no class {parts[begin].strip()[:100]!r}")
        found |= meant
        begin = end
    return frozenset(found)


def _plain(name: str) -> str:
    return ",".join(" ".join(part.split()) for part in name.casefold().split(","))
