"""What one class index of the network means to a person."""

from __future__ import annotations

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
    """The class indices that are meant by words between commas, each a name (in whatever case) or an id.

    Classes of one name are all meant by it. Raises ValueError, naming the word, where a word is no class's.
    """
    found = set[int]()
    for word in (part.strip() for part in words.split(",")):
        named = {index for index, category in enumerate(categories) if category.name.casefold() == word.casefold()}
        named = named or {index for index, category in enumerate(categories) if str(category.id) == word}
        if not named:
            raise ValueError(f"the model has no class {word[:100]!r}")
        found |= named
    return frozenset(found)
