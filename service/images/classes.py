"""The classes that a request asks for."""

from __future__ import annotations

from model.runtime.artifact.metadata import Metadata
from model.runtime.categories import classes_meant_by
from service.errors import ParameterError


def wanted_classes(metadata: Metadata, classes: str | None) -> frozenset[int] | None:
    """Indices of the classes that words mean, None for all. Raises ParameterError for one that there is not."""
    if classes is None:
        return None
    try:
        return classes_meant_by(metadata.categories, classes)
    except ValueError as error:
        names = [category.name for category in metadata.categories]
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        raise ParameterError(f"{error}; it knows {', '.join(names[:10])}{more}") from None
