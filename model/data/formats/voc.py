"""Pascal VOC's data sets: an XML file of boxes for every picture.

The pixels that the numbers of a box stand for differ by who wrote it. VOC's own files, and Roboflow's, count pixels
from 1 and name the last one that is inside; most other tools (labelImg, CVAT, Label Studio) write the edges as they
are. Who wrote it is read from `source`. A reader of our own, because those that others keep (supervision 0.31) know one
of the two only, take the classes in the order in which they come, and name neither file nor object of what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException  # type: ignore[import-untyped]  # refuses entities, which can be bombs
from defusedxml.ElementTree import parse  # type: ignore[import-untyped]

from model.data.formats.annotations import Annotations
from model.data.formats.file_names import FileNames
from model.data.formats.layouts import Place
from model.data.formats.picture_files import displayed_size, pictures_in

_COUNTS_FROM_1 = re.compile(r"pascal ?voc|voc ?20\d\d|roboflow", re.IGNORECASE)
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class _Files:
    """The XML files of a split, and the pictures that may belong to them."""

    folder: Path  # of the XML files
    annotated: Sequence[Path]
    images: Path
    pictures: dict[str, str]  # name in `images`, by the same without its ending


def read_voc(place: Place) -> Annotations:
    """The annotations of a split of a VOC data set. Its classes are those of all its splits, by the alphabet, from 1.

    Raises:
        FileNotFoundError: a listed file, or the picture of one, is missing.
        ValueError: naming file and object of what is malformed.
    """
    files = _files(place)
    names = sorted({name for path in _xml_files(place.root or files.folder) for name in _names(path)})
    if not names:
        raise ValueError(f"{files.folder} has no object in any of its files")
    ids = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, path in enumerate(files.annotated, 1):
        root = _parsed(path)
        picture = _picture(files, path, root)
        height, width = _size(root, path) or displayed_size(files.images / picture)
        images.append({"id": number, "file_name": picture, "width": width, "height": height})
        for position, found in enumerate(root.findall("object"), 1):
            where = f"{path}, object {position}"
            entry = {
                "id": f"of {path.name}, object {position}",
                "image_id": number,
                "category_id": ids[_name(found, where)],
                "iscrowd": 0,
            }
            annotations.append(entry | _shape(found, _first_pixel(root), where))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": id_, "name": name} for name, id_ in ids.items()],
    }
    return Annotations(content, tuple(_notes(files, images, place)), images=files.images)


def _files(place: Place) -> _Files:
    if place.annotations.suffix == ".txt":
        folder = place.annotations.parents[2] / "Annotations"
        annotated = [folder / f"{name}.xml" for name in _listed(place.annotations)]
        if missing := next((path for path in annotated if not path.is_file()), None):
            raise FileNotFoundError(f"{place.annotations} lists {missing.stem}, and there is no {missing}")
    else:
        folder = place.annotations
        annotated = _xml_files(folder)
    if not annotated:
        raise ValueError(f"{place.annotations} leads to no XML file")
    first = annotated[0].relative_to(folder).with_suffix("").as_posix()
    found = [(images, _by_stem(images)) for images in place.images if images.is_dir()]
    own_name = PurePosixPath(_parsed(annotated[0]).findtext("filename") or "").stem
    images, pictures = next(
        (pair for pair in found if first in pair[1] or own_name in pair[1]), found[0] if found else (folder, {})
    )
    return _Files(folder, annotated, images, pictures)


def _listed(file: Path) -> list[str]:
    """The names in a list of `ImageSets`; CVAT puts some in quotes, and lists of one class end in 1, 0 or -1."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    names = [re.sub(r"\s+(-1|0|1)$", "", line).strip('"') for line in lines if line]
    return [re.sub(r"\.(jpe?g|png|webp|xml)$", "", name, flags=re.IGNORECASE) for name in names]


def _xml_files(folder: Path) -> list[Path]:
    """The files of annotations in a folder and those below it."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".xml")
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _by_stem(images: Path) -> dict[str, str]:
    return {PurePosixPath(name).with_suffix("").as_posix(): name for name in pictures_in(images)}


def _parsed(path: Path) -> Element:
    try:
        root: Element | None = parse(path).getroot()
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise ValueError(f"{path} is not XML that can be read: {' '.join(str(error).split())}") from error
    if root is None or root.tag != "annotation":
        raise ValueError(
            f"{path} is no annotation of Pascal VOC: it begins with <{root.tag if root is not None else ''}>"
        )
    return root


def _names(path: Path) -> Iterator[str]:
    """The classes in a file; one that cannot be read is complained about where it belongs to a split that is read."""
    with suppress(ValueError):
        for position, found in enumerate(_parsed(path).findall("object"), 1):
            yield _name(found, f"{path}, object {position}")


def _name(found: Element, where: str) -> str:
    name = (found.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"{where}, has no name")
    return name


def _picture(files: _Files, path: Path, root: Element) -> str:
    """The picture that has the name of the XML file, as all tools write it, or else the one that the file names."""
    stem = path.relative_to(files.folder).with_suffix("").as_posix()
    if stem in files.pictures:
        return files.pictures[stem]
    said = (root.findtext("filename") or "").strip()
    (found,) = FileNames(files.images).find([said]) if said else ("",)
    if not found or not (files.images / found).is_file():
        named = f", nor {said!a}, which it names" if said else ""
        raise FileNotFoundError(f"{path} has no picture: {files.images} has no {path.stem} of any ending{named}")
    return found


def _size(root: Element, path: Path) -> tuple[int, int] | None:
    """(height, width) as annotated; None where the file leaves it out, or says 0, as some tools do."""
    sides = [root.findtext(f"size/{side}") or "0" for side in ("height", "width")]
    try:
        height, width = (int(float(side)) for side in sides)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path} has the size {' x '.join(reversed(sides))}: it must be two numbers") from error
    return (height, width) if height > 0 and width > 0 else None


def _first_pixel(root: Element) -> int:
    """The number of the first pixel: 1, of boxes that name the last pixel inside, or 0, of those that name edges."""
    said = " ".join(root.findtext(f"source/{name}") or "" for name in ("database", "annotation"))
    return 1 if _COUNTS_FROM_1.search(said) else 0


def _shape(found: Element, first: int, where: str) -> dict[str, Any]:
    """The box and, if there are any, outlines in pixels, as COCO has them."""
    outlines = [_outline(polygon, first, where) for polygon in found.findall("polygon")]
    masks = {"segmentation": outlines} if outlines else {}
    box = found.find("bndbox")
    if box is None:
        if not outlines:
            raise ValueError(f"{where}, has no bndbox")
        return masks  # whose box is the one around them
    left, top, right, bottom = (_number(box, corner, where) for corner in _CORNERS)
    left, right, top, bottom = min(left, right), max(left, right), min(top, bottom), max(top, bottom)
    return masks | {"bbox": [left - first, top - first, right - left + first, bottom - top + first]}


def _outline(polygon: Element, first: int, where: str) -> list[float]:
    """The corners of an outline, which is written as x1, y1, x2, y2 and so on."""
    corners = sum(child.tag.startswith("x") for child in polygon)
    return [_number(polygon, f"{axis}{i}", where) - first for i in range(1, corners + 1) for axis in "xy"]


def _number(parent: Element, name: str, where: str) -> float:
    text = (parent.findtext(name) or "").strip()
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}, has {name} {text!r}: it must be a number of pixels")
    return number


def _notes(files: _Files, images: Sequence[dict[str, Any]], place: Place) -> Iterator[str]:
    """What is said of pictures that nobody has annotated; with a list of the split, others belong to other splits."""
    if place.annotations.suffix == ".txt":
        return
    annotated = {image["file_name"] for image in images}
    left = sorted(name for name in files.pictures.values() if name not in annotated)
    if left:
        yield f"left out: {len(left):,} pictures that have no XML file, such as {left[0]}"
