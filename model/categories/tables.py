"""What the authors of Table Transformer (arXiv:2110.00061) call the classes of their two models, by class index."""

from model.categories.names import named_category
from model.runtime.categories import Category

_DETECTION = ("table", "table rotated")
_STRUCTURE = (
    "table",
    "table column",
    "table row",
    "table column header",
    "table projected row header",
    "table spanning cell",
)


def table_categories(num_classes: int) -> tuple[Category, ...] | None:
    """The categories of the model with so many classes, or None where it is neither of the two."""
    names = next((names for names in (_DETECTION, _STRUCTURE) if len(names) == num_classes), None)
    return names and tuple(named_category(index, name) for index, name in enumerate(names))
