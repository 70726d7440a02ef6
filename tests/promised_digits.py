"""Which digits of an answer hold on an engine, in whatever batch, and the comparison of two answers by that promise.

Floats are added in another order on another canvas: attention adds over all its cells, row by row, and so do the norms
of the mask head. Nothing else about a batch matters. On one canvas an answer is the same, byte for byte, whatever the
number of images, their order, what they show, and the threads. What the canvas may change is bounded here, for each
engine and precision.

What lies on an edge may fall to either side of it: an object whose score is as close to the threshold as scores may
differ, a segment of hardly any pixels, and the order of two objects with such scores.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.runtime.answers.panoptic import LARGEST_DROPPED_AREA
from tests.coco_segments import read_id_png

_EDGES = ("x1", "y1", "x2", "y2")
_LAST_OF_EDGE = 0.01  # pixels, the last digit that is answered
_BINARY = 1e-9  # by which a difference of decimals may be off

Found = Mapping[str, Any]  # one detection or segment, as it is answered


@dataclass(frozen=True)
class Digits:
    """By how much two answers to one picture may differ."""

    score: float  # as it is answered
    edge: float  # of a detection's box, as a share of the picture's side, or one unit of the last digit answered
    pixels: float  # share of the picture's pixels that may fall to another segment

    def edge_px(self, side: int) -> float:
        """The same for an edge along a side of so many pixels, in pixels."""
        return max(_LAST_OF_EDGE, self.edge * side)


# By device and precision, as GET /model and the log name them.
PROMISED: Mapping[tuple[str, str], Digits] = {
    ("cpu", "float32"): Digits(score=1e-4, edge=2e-5, pixels=1e-3),
    ("cpu", "float16"): Digits(score=5e-3, edge=1e-3, pixels=1e-2),
    ("cpu", "int8"): Digits(score=1e-4, edge=2e-5, pixels=1e-3),
    ("openvino", "float32"): Digits(score=1e-4, edge=2e-5, pixels=1e-3),
    ("openvino", "bfloat16"): Digits(score=1e-4, edge=2e-5, pixels=5e-3),
    ("openvino", "float16"): Digits(score=1e-4, edge=2e-5, pixels=1e-3),
    ("openvino", "int8"): Digits(score=1e-4, edge=2e-5, pixels=1e-3),
}


@dataclass(frozen=True)
class Difference:
    """Between two answers to one picture; all zero where they are the same, byte for byte."""

    score: float = 0.0
    edge: float = 0.0  # pixels
    pixels: float = 0.0  # share
    is_any: bool = False  # whether a byte differs
    fault: str | None = None  # what breaks the promise


def difference(expected: bytes, found: bytes, digits: Digits, threshold: float) -> Difference:
    """Compare two JSON answers of /detect or of /segment to one picture, asked for with that threshold."""
    if expected == found:
        return Difference()
    one, other = json.loads(expected), json.loads(found)
    if any(one.get(name) != other.get(name) for name in ("model", "image")):
        return Difference(is_any=True, fault="it is about another picture or of another model")
    width, height = one["image"]["width"], one["image"]["height"]
    if "detections" in one:
        return _of_detections(one["detections"], other.get("detections", []), digits, threshold, (width, height))
    return _of_segments(one, other, digits, threshold, width * height)


def _of_detections(
    expected: Sequence[Found], found: Sequence[Found], digits: Digits, threshold: float, size: tuple[int, int]
) -> Difference:
    sides = [digits.edge_px(side) + _BINARY for side in (*size, *size)]

    def alike(one: Found, other: Found) -> bool:
        near = all(d <= most for d, most in zip(_edge_differences(one, other), sides, strict=True))
        return near and _named_and_scored_alike(one, other, digits)

    pairs, alone = _paired(expected, found, alike)
    scores = [one["score"] for one in found]
    fault = "the detections are not in order" if scores != sorted(scores, reverse=True) else None
    for one in alone:
        if one["score"] > threshold + digits.score + _BINARY:
            fault = f"{one['label']} with {one['score']} at {one['box']} is in one answer only"
    edges = [d for pair in pairs for d in _edge_differences(*pair)]
    return Difference(_worst_score(pairs), max(edges, default=0.0), 0.0, is_any=True, fault=fault)


def _of_segments(expected: Found, found: Found, digits: Digits, threshold: float, pixels: int) -> Difference:
    pairs, alone = _paired(
        expected["segments"],
        found.get("segments", []),
        lambda one, other: _named_and_scored_alike(one, other, digits),
    )
    fault = None
    for one in alone:
        is_small = one["area"] <= LARGEST_DROPPED_AREA + digits.pixels * pixels
        if one["score"] > threshold + digits.score + _BINARY and not is_small:
            fault = f"{one['label']} with {one['score']} and {one['area']} pixels is in one answer only"
    moved = _moved(expected, found, pairs)
    if moved > digits.pixels:
        fault = f"{100 * moved:.3g} % of the pixels are in another segment"
    return Difference(_worst_score(pairs), 0.0, moved, is_any=True, fault=fault)


def _moved(expected: Found, found: Found, pairs: Sequence[tuple[Found, Found]]) -> float:
    """Share of the pixels that are in another segment, without those of segments that only one answer has."""
    numbers = [_numbered(answer, [pair[side]["id"] for pair in pairs]) for side, answer in enumerate((expected, found))]
    if numbers[0].shape != numbers[1].shape:
        return 1.0
    return float(((numbers[0] != numbers[1]) & (numbers[0] >= 0) & (numbers[1] >= 0)).mean())


def _numbered(answer: Found, ids: Sequence[int]) -> NDArray[np.int64]:
    """[height, width]: for each pixel the position of its id among `ids`, from 1; 0 where it is void, and -1 where it
    has another id.
    """
    id_map = read_id_png(base64.b64decode(answer["panoptic_png"]))
    numbers = np.full(id_map.max() + 1, -1, dtype=np.int64)
    numbers[0] = 0
    for number, segment_id in enumerate(ids, start=1):
        if segment_id < len(numbers):
            numbers[segment_id] = number
    return numbers[id_map]


def _paired(
    expected: Sequence[Found], found: Sequence[Found], alike: Callable[[Found, Found], bool]
) -> tuple[list[tuple[Found, Found]], list[Found]]:
    """Each of the one with the first that is left of the other and alike, and whatever has no such partner."""
    left, pairs, alone = list(found), [], []
    for one in expected:
        partner = next((position for position, other in enumerate(left) if alike(one, other)), None)
        if partner is None:
            alone.append(one)
        else:
            pairs.append((one, left.pop(partner)))
    return pairs, alone + left


def _named_and_scored_alike(one: Found, other: Found, digits: Digits) -> bool:
    return bool(one["label"] == other["label"] and abs(one["score"] - other["score"]) <= digits.score + _BINARY)


def _edge_differences(one: Found, other: Found) -> Iterator[float]:
    return (abs(one["box"][edge] - other["box"][edge]) for edge in _EDGES)


def _worst_score(pairs: Sequence[tuple[Found, Found]]) -> float:
    return max((abs(one["score"] - other["score"]) for one, other in pairs), default=0.0)
