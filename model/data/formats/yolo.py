"""YOLO's data sets, for detection and segmentation: a file of lines for every picture.

The format is that of Ultralytics (https://docs.ultralytics.com/datasets/detect/): a line is a class index and either a
box (centre x and y, width, height) or an outline (x, y, x, y, ...), in fractions of the picture as it is displayed.

A reader of our own, because those that others keep (supervision 0.31, Ultralytics) pass over in silence what is refused
or counted here: pictures whose labels lie elsewhere are empty, lines of a class without a name or with numbers beyond
the picture are taken or dropped, and the lists of data.yaml are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from model.data.formats.annotations import Annotations
from model.data.formats.layouts import Place
from model.data.formats.picture_files import displayed_size
from model.data.formats.yolo_folder import YoloFolder, read_folder

_SLACK = 0.01  # of a picture's side, by which a tool's rounding may lead out of it
_THREADS = 8  # that read the beginnings of pictures


class _Labelled(NamedTuple):
    """A picture and what its file of labels says."""

    size: tuple[int, int]  # (height, width)
    file: Path | None  # None where there is none
    lines: tuple[str, ...]


def read_yolo(place: Place) -> Annotations:
    """The annotations of a split of a YOLO data set. A class's index is its category id.

    Raises:
        FileNotFoundError: a file that is named is missing.
        ValueError: naming file and line of what is malformed, or a picture that cannot be read.
    """
    folder = read_folder(place)
    with ThreadPoolExecutor(_THREADS) as pool:
        labelled = list(pool.map(_labelled, folder.pictures))
    images, annotations = [], []
    twice = 0
    for number, (picture, found) in enumerate(zip(folder.pictures, labelled, strict=True), 1):
        height, width = found.size
        images.append({"id": number, "file_name": folder.name_of(picture), "width": width, "height": height})
        objects = {values: line for line, values in _objects(found, folder)}
        annotations += [
            {
                "id": f"of {found.file.name if found.file else ''}, line {line}",
                "image_id": number,
                "iscrowd": 0,
                **_annotation(values, found.size),
            }
            for values, line in objects.items()
        ]
        twice += sum(bool(line.split()) for line in found.lines) - len(objects)
    content = {"images": images, "annotations": annotations, "categories": folder.categories()}
    empty = [picture for picture, found in zip(folder.pictures, labelled, strict=True) if found.file is None]
    return Annotations(content, tuple(_notes(folder.pictures, empty, twice)), images=folder.base)


def _notes(pictures: Sequence[Path], empty: Sequence[Path], twice: int) -> Iterator[str]:
    """What is said of pictures without labels and of lines that repeat others. Raises ValueError if none has labels."""
    if len(empty) == len(pictures):
        looked = " and ".join(str(path) for path in _label_files(empty[0]))
        raise ValueError(f"none of the {len(pictures)} pictures has labels: for {empty[0]}, looked for {looked}")
    if empty:
        yield f"taken as without objects: {len(empty):,} pictures that have no file of labels, such as {empty[0].name}"
    if twice:
        yield f"left out: {twice:,} lines that repeat another line of their file"


def _labelled(picture: Path) -> _Labelled:
    size = displayed_size(picture)
    file = next((path for path in _label_files(picture) if path.is_file()), None)
    if file is None:
        return _Labelled(size, None, ())
    try:
        return _Labelled(size, file, tuple(file.read_text(encoding="utf-8-sig").split("\n")))
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text of labels: byte {error.start:,} is none of UTF-8") from error


def _label_files(picture: Path) -> list[Path]:
    """Where the labels of a picture may be: in `labels` where it lies in `images`, or beside it."""
    parts = list(picture.parts)
    folders = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    swapped = [Path(*parts[: folders[-1]], "labels", *parts[folders[-1] + 1 :])] if folders else []
    return [path.with_suffix(".txt") for path in (*swapped, picture)]


def _objects(found: _Labelled, folder: YoloFolder) -> Iterator[tuple[int, tuple[float, ...]]]:
    """The number of every line that is not empty, and its values: the class index, then fractions."""
    for number, line in enumerate(found.lines, 1):
        words = line.split()
        if words:
            yield number, _values(words, folder, f"{found.file}, line {number}")


def _values(words: Sequence[str], folder: YoloFolder, where: str) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in words)
    except ValueError as error:
        raise ValueError(f"{where} is {' '.join(words)[:60]!r}: a line has numbers only") from error
    if len(values) == 5 + folder.keypoint_values:  # a pose: its points are not learnt
        values = values[:5]
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        wanted = "a class, then a box of four or an outline of three points or more"
        raise ValueError(f"{where} has {len(values)} numbers: it must have {wanted}")
    if values[0] not in folder.names:
        known = f"{folder.file} names {', '.join(map(str, list(folder.names)[:5]))}{', ...' * (len(folder.names) > 5)}"
        raise ValueError(f"{where} has class {words[0]}, which has no name: {known}")
    # A comparison with NaN is false.
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values[1:]):
        raise ValueError(f"{where} has numbers that are no fractions of the picture's sides, from 0 to 1")
    return values


def _annotation(values: tuple[float, ...], size: tuple[int, int]) -> dict[str, Any]:
    """The category, box and, of an outline, segmentation in pixels, as COCO has them."""
    height, width = size
    found: dict[str, Any] = {"category_id": int(values[0])}
    if len(values) == 5:
        x, y, w, h = values[1:]
        return found | {"bbox": [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]}
    xs, ys = [x * width for x in values[1::2]], [y * height for y in values[2::2]]
    outline = [value for point in zip(xs, ys, strict=True) for value in point]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return found | {"bbox": box, "segmentation": [outline], "area": _area(xs, ys)}


def _area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The pixels within an outline."""
    following = zip([*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(math.fsum(x * v - u * y for x, y, (u, v) in zip(xs, ys, following, strict=True))) / 2
