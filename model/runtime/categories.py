"""What one class index of the network means to a person."""

from __future__ import annotations

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
