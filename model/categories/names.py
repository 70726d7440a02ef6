"""Reads a names file: what the classes of a network are called, where the checkpoint does not say it."""

import colorsys
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.runtime.categories import Category


class NamesError(Exception):
    """A names file that cannot be used; the message says where it is wrong."""


def read_names(path: Path) -> tuple[Category, ...]:
    """The categories in a names file, by class index.

    A `.json` file holds a list with one entry a class, each a name or an object `{"id", "name", "isthing",
    "color"}` of which only the name must be given. Any other file is text with one name a line. An id that is
    not given is the class index, a class is a thing unless said otherwise, and a color that is not given is
    chosen by class index.

    Raises NamesError on anything else, on an empty list, and where two classes have the same id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NamesError(f"{path.name} cannot be read as text: {error}") from error
    entries = _json_entries(path, text) if path.suffix.lower() == ".json" else text.rstrip().splitlines()
    if not entries:
        raise NamesError(f"{path.name} names no class")
    categories = tuple(_category(path, index, entry) for index, entry in enumerate(entries))
    _refuse_repeated_ids(path, categories)
    return categories


def named_category(index: int, name: str) -> Category:
    """The class at `index` with this name, a thing, its id the index and its color chosen by it."""
    return Category(index, name, True, distinct_color(index))


def distinct_color(index: int) -> tuple[int, int, int]:
    """An RGB color for a class index, far from those of its neighbors and always the same.

    Steps of the golden ratio around the color wheel never come close to an earlier step for long.
    """
    hue, saturation, value = index * 0.618034 % 1.0, (0.9, 0.65)[index % 2], (0.9, 0.7, 1.0)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _json_entries(path: Path, text: str) -> list[Any]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise NamesError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(entries, list):
        raise NamesError(f"{path.name} must hold a list with one entry a class")
    return entries


def _category(path: Path, index: int, entry: object) -> Category:
    where = f"{path.name}, class {index}"
    fields = entry if isinstance(entry, Mapping) else {"name": entry}
    if unknown := set(fields) - {"id", "name", "isthing", "color"}:
        raise NamesError(f"{where}: unknown field {', '.join(sorted(map(str, unknown)))}")
    name = fields.get("name")
    if not isinstance(name, str) or not name.strip():
        raise NamesError(f"{where}: the name is missing or empty")
    id_ = fields.get("id", index)
    if type(id_) is not int or id_ < 0:
        raise NamesError(f"{where}: the id must be an integer, zero or more")
    isthing = fields.get("isthing", True)
    if isthing not in (True, False):  # COCO's own files write 1 and 0, which are equal to these.
        raise NamesError(f"{where}: isthing must be true or false")
    return Category(id_, name.strip(), bool(isthing), _color(where, fields.get("color"), index))


def _color(where: str, color: object, index: int) -> tuple[int, int, int]:
    if color is None:
        return distinct_color(index)
    match color:
        case [int(red), int(green), int(blue)] if min(red, green, blue) >= 0 and max(red, green, blue) <= 255:
            return red, green, blue
    raise NamesError(f"{where}: the color must be three integers from 0 to 255")


def _refuse_repeated_ids(path: Path, categories: tuple[Category, ...]) -> None:
    seen: dict[int, str] = {}
    for category in categories:
        if category.id in seen:
            pair = f"{seen[category.id]!r} and {category.name!r}"
            raise NamesError(f"{path.name}: {pair} have the same id {category.id}")
        seen[category.id] = category.name
