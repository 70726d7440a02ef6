"""Where annotation tools put their files: a list of known layouts, each a description, and one search through them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

# What tools call the splits; the first is ours.
SPLIT_NAMES = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
_SHOWN = 12  # files and folders in a complaint


@dataclass(frozen=True)
class Layout:
    """How a tool lays out its files. Paths are below the root; `{split}` is a split's name, `*` is anything."""

    tool: str  # which writes it, for people
    annotations: str
    images: tuple[str, ...]  # folders that may hold the pictures, the likeliest first
    many: bool = False  # whether a folder of such files is meant, and not one of them


class Place(NamedTuple):
    """Where the annotations and pictures of a split are."""

    tool: str
    annotations: Path  # a file or a folder
    images: tuple[Path, ...]  # folders that may hold the pictures, the likeliest first
    root: Path | None = None  # the folder of the data set
    split: str | None = None  # what its annotations call the split, where they tell several apart


# Folders that hold both splits, or from which a name leads on to the picture.
_ALL_IMAGES = ("images", "data", "JPEGImages", ".")

COCO = (
    # Before all others, because `detr data split` divides data of any of them into these two files.
    Layout("CVAT", "annotations/instances_{split}.json", ("images/{split}", "{split}")),
    Layout("COCO 2017", "annotations/instances_{split}2017.json", ("{split}2017", "images/{split}2017")),
    Layout("COCO 2014", "annotations/instances_{split}2014.json", ("{split}2014", "images/{split}2014")),
    Layout("Roboflow", "{split}/_annotations.coco.json", ("{split}",)),
    Layout("FiftyOne", "{split}/labels.json", ("{split}/data", "{split}")),
    Layout("a file for each split", "annotations/{split}.json", ("{split}", "images/{split}")),
    Layout("a file for each split", "annotations/*_{split}.json", ("{split}", "images/{split}")),
    Layout("a file for each split", "annotations/{split}_*.json", ("{split}", "images/{split}")),
    Layout("a file for each split", "{split}.json", ("{split}", "images/{split}")),
    Layout("a file for each split", "*_{split}.json", ("{split}", "images/{split}")),
    Layout("a file for each split", "{split}_*.json", ("{split}", "images/{split}")),
    Layout("a folder for each split", "{split}/annotations.json", ("{split}/images", "{split}")),
    Layout("a folder for each split", "{split}/*.json", ("{split}/images", "{split}")),
    Layout("CVAT", "annotations/instances_default.json", ("images/default",)),
    Layout("Label Studio", "result.json", ()),
    Layout("FiftyOne", "labels.json", ("data",)),
    Layout("Roboflow", "_annotations.coco.json", (".",)),
    Layout("one file", "*.json", ()),
    Layout("one file", "annotations/*.json", ()),
)
PANOPTIC = tuple(
    replace(layout, annotations=layout.annotations.replace("instances", "panoptic"))
    for layout in COCO
    if "instances" in layout.annotations
)

VOC = (
    Layout("Pascal VOC, CVAT", "ImageSets/Main/{split}.txt", ("JPEGImages",)),
    Layout("Roboflow", "{split}/*.xml", ("{split}",), many=True),
    Layout("a folder for each split", "{split}/annotations/*.xml", ("{split}/images", "{split}"), many=True),
    Layout("a folder for each split", "annotations/{split}/*.xml", ("images/{split}", "{split}"), many=True),
    Layout("CVAT", "ImageSets/Main/default.txt", ("JPEGImages",)),
    Layout("Pascal VOC", "ImageSets/Main/trainval.txt", ("JPEGImages",)),
    Layout("Label Studio", "Annotations/*.xml", ("JPEGImages",), many=True),
    Layout("labelImg", "*.xml", (".",), many=True),
    Layout("labelImg", "images/*.xml", ("images",), many=True),
    Layout("labelImg", "labels/*.xml", ("images",), many=True),
)


def find(layouts: Sequence[Layout], root: Path, split: str | None) -> Place | None:
    """The first layout that a folder has for a split or, for None, for data without splits.

    Raises ValueError where several files would do.
    """
    for layout in layouts:
        if ("{split}" in layout.annotations) != (split is not None):
            continue
        for name in names_of(split) if split is not None else ("",):
            found = matching(root, _filled(layout.annotations, name))
            if layout.annotations.endswith(".json") and "*" in layout.annotations:
                found = [path for path in found if _names_annotations(path)]
            if len(found) > 1 and not layout.many:
                listed = _listed([str(path.relative_to(root)) for path in found])
                raise ValueError(f"{root} holds {listed}: say with --annotations which is meant")
            if found:
                images = [*(_filled(folder, name) for folder in layout.images), *_ALL_IMAGES]
                folders = [path for image in dict.fromkeys(images) for path in _folders(root, image)]
                return Place(layout.tool, found[0].parent if layout.many else found[0], tuple(folders), root)
    return None


def names_of(split: str) -> tuple[str, ...]:
    """What tools call a split."""
    return next((names for names in SPLIT_NAMES if split in names), (split,))


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files and folders below a folder whose path is like a pattern, in whatever case; exact case goes first."""
    first, _, rest = pattern.partition("/")
    if first == ".":
        return [folder]
    try:
        here = sorted(folder.iterdir())
    except OSError:  # it is no folder
        return []
    alike = [path for path in here if path.name == first] or [
        path for path in here if fnmatchcase(path.name.casefold(), first.casefold())
    ]
    if not rest:
        return alike
    return [path for parent in alike for path in matching(parent, rest)]


def _names_annotations(path: Path) -> bool:
    """Whether a file of any name is one of annotations; JSON of other kinds lies beside pictures, too."""
    data = path.read_bytes() if path.is_file() else b""
    return all(key in data for key in (b'"images"', b'"annotations"', b'"categories"'))


def _filled(pattern: str, split: str) -> str:
    return pattern.replace("{split}", glob.escape(split))


def _folders(root: Path, pattern: str) -> Iterator[Path]:
    """The folder of a pattern as it is written there, or as it would be."""
    found = [path for path in matching(root, pattern) if path.is_dir()]
    yield from found or [root / pattern]


def contents_of(folder: Path) -> str:
    """What lies in a folder, for a complaint."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())]
    return f"are {_listed(names)}" if len(names) > 1 else f"is {names[0] if names else 'nothing'}"


def _listed(names: Sequence[str]) -> str:
    rest = [f"{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    *first, last = [*names[:_SHOWN], *rest]
    return f"{', '.join(first)} and {last}" if first else last
