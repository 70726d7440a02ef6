"""The fields of annotation files as annotation tools write them: each means what it plainly means, or is refused.

Tools write numbers as text, whole numbers with a decimal point, flags as words. A complaint begins with the place,
names the field and its value, and is one line.
"""

from __future__ import annotations

import math
import re
from typing import Any

_SHOWN = 60  # characters of a value in a complaint
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "no": False, "yes": True}
_DIGITS = re.compile(r"[+-]?[0-9]{1,20}")
_EXACT = 2**53  # beyond, floats skip whole numbers
_LARGEST_ID = 2**64  # what databases and hashes count to


def field_of(entry: Any, name: str, where: str) -> Any:
    """A field of an entry. Raises ValueError if there is none, or the entry is no JSON object."""
    if not isinstance(entry, dict) or name not in entry:
        raise ValueError(f"{where} has no {name}")
    return entry[name]


def entries_of(content: dict[str, Any], name: str, where: str) -> list[Any]:
    """A field that is a list. Raises ValueError if it is none."""
    entries = field_of(content, name, where)
    if not isinstance(entries, list):
        raise wrong(where, name, entries, "a list")
    return entries


def whole_number(entry: Any, name: str, where: str, *, smallest: int | None = None, largest: int | None = None) -> int:
    """A field that is a whole number: 7, "7" and 7.0 are the same. Raises ValueError for anything else."""
    value = field_of(entry, name, where)
    number = _whole(value)
    is_small = number is not None and smallest is not None and number < smallest
    is_large = number is not None and largest is not None and number > largest
    if number is None or is_small or is_large:
        bounds = (
            "" if smallest is None else f", {smallest} or more" if largest is None else f" from {smallest} to {largest}"
        )
        raise wrong(where, name, value, f"a whole number{bounds}")
    return number


def _whole(value: Any) -> int | None:
    number = value
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
        number = int(value)
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        number = int(value)
    return number if type(number) is int and abs(number) < _LARGEST_ID else None


def number_from(value: Any) -> float | None:
    """A finite number, or one written as text; None for anything else, such as true, NaN and what is too large."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if type(value) not in (int, float) or not -1e300 < value < 1e300:
        return None
    return value if type(value) is int else float(value)


def flag(entry: Any, name: str, where: str, *, default: bool) -> bool:
    """A field that is yes or no, as 1, true, "1", "true" or "yes"; the default where it is absent, null or empty.

    Raises ValueError for anything else.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if value is None or value == "":
        return default
    if isinstance(value, str):
        found = _FLAGS.get(value.strip().lower())
        if found is not None:
            return found
    elif isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise wrong(where, name, value, "0 or 1")


def text(entry: Any, name: str, where: str) -> str:
    """A field that is text, or a number, as it is written. Raises ValueError for anything else, and for empty text."""
    value = field_of(entry, name, where)
    if type(value) in (int, float) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise wrong(where, name, value, "text that is not empty")
    return value


def wrong(where: str, name: str, value: Any, wanted: str) -> ValueError:
    """The complaint about a field."""
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."
    return ValueError(f"{where} has {name} {shown}: it must be {wanted}")
