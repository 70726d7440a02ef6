"""Reads a names file: what the classes of a network are called, where the checkpoint does not say it."""

import colorsys
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from model.categories.coco import UNNAMED
from model.runtime.categories import Category

# COCO's files have the others, which are of no use here.
KNOWN_FIELDS = frozenset({"id", "name", "isthing", "color", "supercategory", "keypoints", "skeleton"})


class NamesError(Exception):
    """A names file that cannot be used; the message says where it is wrong."""


@dataclass(frozen=True)
class ClassNames:
    """What classes are called, in the order of their ids, which are unique.

    `by_id` is whether each id was written down, rather than being the place in a list.
    """

    categories: tuple[Category, ...]
    by_id: bool = False

    def of_classes(self, count: int) -> tuple[Category, ...]:
        """The categories of a network with so many classes, by class index.

        Where there is one for each class, they have them in the order of their ids, as training numbers the
        categories of annotations. Where there are fewer, and each with an id, an id is the class index, as the
        published networks have it, and a class without a name is "N/A". NamesError where neither fits.
        """
        if len(self.categories) == count:
            return self.categories
        last = self.categories[-1].id
        if not self.by_id or last >= count or len(self.categories) > count:
            ids = f", with ids up to {last}," if self.by_id else ""
            raise NamesError(f"there are {len(self.categories)} category names{ids} for {count} classes")
        named = {category.id: category for category in self.categories}
        return tuple(named.get(index, Category(index, UNNAMED, True, (0, 0, 0))) for index in range(count))


def read_names(path: Path) -> ClassNames:
    """What the classes are called by a names file.

    A `.json` file holds a list with one entry a class, each a name or an object `{"id", "name", "isthing",
    "color"}` of which only the name must be given; or an object from id to name; or one that has such a list as its
    `categories` (COCO's annotations) or such an object as its `id2label` (transformers' config.json). Any other file
    is text with one name a line. An id that is not given is the place in the list, from 0. A class is a thing unless
    said otherwise, and a color that is not given is chosen by the place in the order of ids.

    Raises NamesError on anything else, on an empty list, and where two classes have the same id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise NamesError(f"{path.name} cannot be read as text: {error}") from error
    entries = _json_entries(path, text) if path.suffix.lower() == ".json" else text.rstrip().splitlines()
    if not entries:
        raise NamesError(f"{path.name} names no class")
    checked = [_checked(path, index, entry) for index, entry in enumerate(entries)]
    _refuse_repeated_ids(path, checked)
    ordered = sorted(checked, key=lambda category: category.id)
    categories = tuple(
        Category(c.id, c.name, c.isthing, c.color or distinct_color(rank)) for rank, c in enumerate(ordered)
    )
    return ClassNames(categories, by_id=all(isinstance(entry, Mapping) and "id" in entry for entry in entries))


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


class _Entry(NamedTuple):
    """A category whose color may be left to choose."""

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int] | None


def _json_entries(path: Path, text: str) -> list[Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NamesError(f"{path.name} is not JSON: {error}") from error
    if isinstance(content, dict):
        content = content.get("categories", content.get("id2label", content))
    if isinstance(content, dict) and all(re.fullmatch(r"[0-9]{1,9}", id_) for id_ in content):
        return [{"id": int(id_), "name": name} for id_, name in content.items()]
    if not isinstance(content, list):
        raise NamesError(f"{path.name} must hold a list with one entry a class, or an object from id to name")
    return content


def _checked(path: Path, index: int, entry: object) -> _Entry:
    where = f"{path.name}, class {index}"
    fields = entry if isinstance(entry, Mapping) else {"name": entry}
    if unknown := set(fields) - KNOWN_FIELDS:
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
    return _Entry(id_, name.strip(), bool(isthing), _color(where, fields.get("color")))


def _color(where: str, color: object) -> tuple[int, int, int] | None:
    match color:
        case None:
            return None
        case [int(red), int(green), int(blue)] if min(red, green, blue) >= 0 and max(red, green, blue) <= 255:
            return red, green, blue
    raise NamesError(f"{where}: the color must be three integers from 0 to 255")


def _refuse_repeated_ids(path: Path, entries: list[_Entry]) -> None:
    seen: dict[int, str] = {}
    for entry in entries:
        if entry.id in seen:
            pair = f"{seen[entry.id]!r} and {entry.name!r}"
            raise NamesError(f"{path.name}: {pair} have the same id {entry.id}")
        seen[entry.id] = entry.name
