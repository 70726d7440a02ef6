"""How large the network sees an image: the few rules that models are trained and published with.

Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Size = tuple[int, int]
Rounding = Literal["published", "transformers"]


def _check_sides(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"an image needs positive sides, not {height} x {width}")


def _check_rounding(rounding: str) -> None:
    if rounding not in get_args(Rounding):
        raise ValueError(f"a resize rule rounds as {' or '.join(get_args(Rounding))}, not as {rounding!r}")


def _told(rounding: Rounding) -> str:
    return "as published" if rounding == "published" else "as transformers rounds"


class ResizeRule(ABC):
    """From the size of an image to the size that the network sees. `str` is a phrase for people."""

    is_bounded = True  # whether its sizes have a bound whatever the image is

    @abstractmethod
    def size(self, height: int, width: int) -> Size:
        """The size of an image of these sides, each side at least 1. Raises ValueError if a side is not positive."""

    @abstractmethod
    def largest(self, max_pixels: int) -> Size:
        """The largest size, strips aside, that an image of at most `max_pixels` pixels gets."""

    @abstractmethod
    def sizes(self) -> Iterable[Size]:
        """Every size that it gives, and maybe some that it does not; none where only the image says its size."""


@dataclass(frozen=True)
class Edges(ResizeRule):
    """The shorter side becomes one length, unless the longer side would pass another: the aspect ratio is kept.

    DETR (arXiv:2005.12872), section 4, uses 800 and 1333. The two roundings are those of the published implementation
    (facebookresearch/detr, datasets/transforms.py) and of transformers (image_transforms.py; its processors with
    torchvision and with Pillow share it). They differ by a pixel where the longer side decides.
    """

    shortest_edge: int  # pixels, the target of the shorter side
    longest_edge: int  # pixels, what the longer side is kept to
    rounding: Rounding = "published"

    def __post_init__(self) -> None:
        """Raise ValueError unless 1 <= shortest_edge <= longest_edge and the rounding is known."""
        if not 1 <= self.shortest_edge <= self.longest_edge:
            raise ValueError(
                "a resize rule needs 1 <= shortest edge <= longest edge, "
                f"not {self.shortest_edge} and {self.longest_edge}"
            )
        _check_rounding(self.rounding)

    def size(self, height: int, width: int) -> Size:
        """The same integers as the implementation that the rounding names.

        The shorter side becomes `shortest_edge`, unless the longer one would then pass `longest_edge`; in that case
        the shorter side is what that limit leaves it, rounded. As published, this rounding is carried to the longer
        side, past the limit by half an aspect ratio (1334 for 1333 in ordinary panoramas, at worst twice the limit),
        and published results include that; transformers takes the longer side from the unrounded one. Where
        either rounds a side to zero and fails, a strip gets one pixel and the limit.
        """
        _check_sides(height, width)
        short, long = min(height, width), max(height, width)
        new = self._published(short, long) if self.rounding == "published" else self._transformers(short, long)
        return new if height <= width else new[::-1]

    def _published(self, short: int, long: int) -> Size:
        new_short = self.shortest_edge
        if long * new_short > self.longest_edge * short:
            new_short = round(self.longest_edge * short / long)
        if new_short == short:
            return short, long
        return max(new_short, 1), self.longest_edge if new_short == 0 else new_short * long // short

    def _transformers(self, short: int, long: int) -> Size:
        # The order of these operations on floats is a part of the rule.
        new_short, unrounded = self.shortest_edge, float(self.shortest_edge)
        if long / short * new_short > self.longest_edge:
            unrounded = self.longest_edge * float(short) / long
            new_short = round(unrounded)
        if new_short == short:
            return short, long
        return max(new_short, 1), max(int(unrounded * long / short), 1)

    def largest(self, max_pixels: int) -> Size:
        """The two edges."""
        return self.shortest_edge, self.longest_edge

    def sizes(self) -> Iterable[Size]:
        """Every size of images that are no strips, and of strips at every rounding."""
        short, long = self.shortest_edge, self.longest_edge
        sides = {(short, side) for side in range(short, long + 1)}
        for side in range(1, short + 1):
            # The shorter side is rounded to this one, and the rounding is carried to the longer one; see `size`.
            low, high = math.floor(long * side / (side + 0.5)), math.ceil(long * side / (side - 0.5))
            sides |= {(side, max(side, length)) for length in range(low, high + 1)}
        return sides | {(b, a) for a, b in sides}

    def __str__(self) -> str:
        return f"{self.shortest_edge} and {self.longest_edge} pixels, {_told(self.rounding)}"


PUBLISHED_EDGES = Edges(800, 1333)


@dataclass(frozen=True)
class FixedSize(ResizeRule):
    """Every image becomes one size, whatever its aspect ratio."""

    height: int  # pixels
    width: int  # pixels

    def __post_init__(self) -> None:
        """Raise ValueError unless both sides are positive."""
        _check_sides(self.height, self.width)

    def size(self, height: int, width: int) -> Size:
        """The one size."""
        _check_sides(height, width)
        return self.height, self.width

    def largest(self, max_pixels: int) -> Size:
        """The one size."""
        return self.height, self.width

    def sizes(self) -> Iterable[Size]:
        """The one size."""
        return {(self.height, self.width)}

    def __str__(self) -> str:
        return f"{self.height} pixels high and {self.width} wide, whatever the picture's aspect ratio"


@dataclass(frozen=True)
class Bounds(ResizeRule):
    """As large as fits into a rectangle with the aspect ratio kept; a small image grows to it, too.

    The two roundings are to the nearest, as the authors of Table Transformer do (microsoft/table-transformer,
    src/inference.py, `MaxResize`), and down, as transformers does (image_utils.py,
    `get_image_size_for_max_height_width`). A side that either rounds to zero is one pixel.
    """

    max_height: int  # pixels
    max_width: int  # pixels
    rounding: Rounding = "published"

    def __post_init__(self) -> None:
        """Raise ValueError unless both sides are positive and the rounding is known."""
        _check_sides(self.max_height, self.max_width)
        _check_rounding(self.rounding)

    def size(self, height: int, width: int) -> Size:
        """The largest size with the aspect ratio kept, but at least one pixel."""
        _check_sides(height, width)
        scale = min(self.max_height / height, self.max_width / width)
        whole = round if self.rounding == "published" else int
        return max(1, whole(height * scale)), max(1, whole(width * scale))

    def largest(self, max_pixels: int) -> Size:
        """The rectangle."""
        return self.max_height, self.max_width

    def sizes(self) -> Iterable[Size]:
        """All that touch the rectangle in one direction."""
        # The side that reaches its bound may be a pixel short of it, by the rounding of floats.
        heights, widths = ({max(1, most - 1), most} for most in (self.max_height, self.max_width))
        wide = {(height, width) for height in range(1, self.max_height + 1) for width in widths}
        return wide | {(height, width) for width in range(1, self.max_width + 1) for height in heights}

    def __str__(self) -> str:
        return f"to fit into {self.max_height} pixels of height and {self.max_width} of width, {_told(self.rounding)}"


@dataclass(frozen=True)
class OwnSize(ResizeRule):
    """Every image keeps its size."""

    is_bounded = False

    def size(self, height: int, width: int) -> Size:
        """The image's own size."""
        _check_sides(height, width)
        return height, width

    def largest(self, max_pixels: int) -> Size:
        """A square of so many pixels."""
        side = math.isqrt(max_pixels)
        return side, side

    def sizes(self) -> Iterable[Size]:
        """None: only the image says its size."""
        return ()

    def __str__(self) -> str:
        return "none, every picture is seen at its own size"


_KINDS: dict[str, type[ResizeRule]] = {"edges": Edges, "fixed": FixedSize, "bounds": Bounds, "none": OwnSize}


def rule_to_record(rule: ResizeRule) -> dict[str, Any]:
    """JSON that `rule_from_record` turns into an equal rule."""
    kind = next(name for name, of in _KINDS.items() if isinstance(rule, of))
    return {"rule": kind, **asdict(rule)}  # type: ignore[call-overload]  # all of them are dataclasses


def rule_from_record(record: Mapping[str, Any]) -> ResizeRule:
    """The rule of a record. Raises ValueError naming the field that is missing, unknown or wrong."""
    kind = record.get("rule")
    if kind not in _KINDS:
        raise ValueError(f"field 'resize.rule' is {kind!r}, and has to be one of {', '.join(_KINDS)}")
    types = {field.name: str if field.name == "rounding" else int for field in fields(_KINDS[kind])}  # type: ignore[arg-type]
    for name in record:
        if name not in types and name != "rule":
            raise ValueError(f"field {f'resize.{name}'!r} is unknown")
    for name, wanted in types.items():
        if name not in record:
            raise ValueError(f"field {f'resize.{name}'!r} is missing")
        if type(record[name]) is not wanted:
            raise ValueError(f"field {f'resize.{name}'!r} is not of type {wanted.__name__}")
    return _KINDS[kind](**{name: record[name] for name in types})


def parse_resize_rule(text: str) -> ResizeRule:
    """The rule that a person means by `800,1333`, `640x480` (width x height), `max:640x480` or `none`.

    Raises ValueError, with what can be said, for anything else.
    """
    if text == "none":
        return OwnSize()
    if match := re.fullmatch(r"(\d+),(\d+)", text):
        return Edges(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"(max:)?(\d+)x(\d+)", text):
        return (Bounds if match[1] else FixedSize)(int(match[3]), int(match[2]))
    raise ValueError(
        f"{text!r} is no resize rule: SHORTEST,LONGEST (800,1333), WIDTHxHEIGHT (640x480), max:WIDTHxHEIGHT or none"
    )
