"""From the name of a folder to its annotated pictures: kinds of data sets, their splits, and files named otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from model.data.formats import layouts
from model.data.formats.annotations import Annotations, held_out_ids, only_pictures, without_root
from model.data.formats.coco import CocoDetection
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_files import read_annotations
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.layouts import Layout, Place
from model.data.formats.voc import read_voc
from model.data.formats.yolo import read_yolo
from model.data.formats.yolo_folder import LOOKED_FOR, search_yolo

DATASET_KINDS = ("shapes", "coco", "coco-panoptic", "yolo", "voc")
DATASET_KINDS_IN_WORDS = (
    "things (coco, yolo, voc), or things and stuff (coco-panoptic, and shapes, which `detr shapes` writes)"
)

# Which of the pictures that are annotated in one place belong to a split: where there is no validation set, it is a
# share of what there is to learn from.
Part = Literal["all", "learnt", "held out"]


class NamedFiles(NamedTuple):
    """Where annotations and pictures are, if a user names them; None is looked for."""

    annotations: Path | None = None
    images: Path | None = None


NOTHING_NAMED = NamedFiles()


@dataclass(frozen=True)
class _Kind:
    what: str  # its annotations, for complaints
    looked_for: tuple[str, ...]  # where they may be, for complaints
    search: Callable[[Path, str | None], Place | None]
    read: Callable[[Place], Annotations]


def _laid_out(what: str, known: tuple[Layout, ...], read: Callable[[Place], Annotations]) -> _Kind:
    return _Kind(what, tuple(layout.annotations for layout in known), partial(layouts.find, known), read)


def _read_coco(place: Place) -> Annotations:
    return without_root(Annotations(read_annotations(place.annotations)))


def _read_panoptic(place: Place) -> Annotations:
    return Annotations(read_annotations(place.annotations))


_PANOPTIC = _laid_out("panoptic annotations", layouts.PANOPTIC, _read_panoptic)
_YOLO = _Kind("YOLO data set", LOOKED_FOR, search_yolo, read_yolo)
_KINDS = {
    "shapes": _PANOPTIC,
    "coco": _laid_out("COCO annotations", layouts.COCO, _read_coco),
    "coco-panoptic": _PANOPTIC,
    "yolo": _YOLO,
    "voc": _laid_out("Pascal VOC annotations", layouts.VOC, read_voc),
}


@dataclass(frozen=True)
class Split:
    """Annotated pictures, and where they are."""

    kind: str  # one of DATASET_KINDS
    name: str
    place: Place
    part: Part = "all"

    def describe(self, data: CocoDataset) -> str:
        """In a line what the split is, opened as `data`."""
        parts = {
            "all": "",
            "learnt": ", without the tenth that is kept to validate with",
            "held out": ", the tenth that is kept to validate with, because there is no validation set",
        }
        count = f"{len(data):,} picture{'s' * (len(data) > 1)}"
        return f"{self.name}: {count} of {data.images}, annotated in {data.annotations}{parts[self.part]}"

    @property
    def panoptic(self) -> Path | None:
        """The file of segments of things and stuff, or None where there are things only."""
        return self.place.annotations if _KINDS[self.kind] is _PANOPTIC else None

    def read(self) -> Annotations:
        """What is annotated. Raises FileNotFoundError where a file is missing, ValueError where one is malformed."""
        return self._parted(_KINDS[self.kind].read(self.place))

    def instances(self) -> tuple[Path, Annotations | None]:
        """The boxes of the things, and the file they are in: with panoptic data it is another one, beside it.

        None where that file is missing. Raises what `read` does.
        """
        panoptic = self.panoptic
        if panoptic is None:
            return self.place.annotations, self.read()
        path = panoptic.with_name(panoptic.name.replace("panoptic", "instances", 1))
        if path == panoptic or not path.exists():
            return path, None
        return path, self._parted(Annotations(read_annotations(path)))

    def open(self, *, masks: bool) -> CocoDataset:
        """The pictures with what is annotated in them. Raises what `read` and the data sets do."""
        of_kind = CocoDetection if self.panoptic is None else CocoPanoptic
        return of_kind(self.place.images, self.place.annotations, masks=masks, read=self.read())

    def _parted(self, read: Annotations) -> Annotations:
        if self.part == "all":
            return read
        parted = only_pictures(read, held_out_ids(read.content["images"]), kept=self.part == "held out")
        if not parted.content["images"]:
            raise ValueError(f"{self.place.annotations} lists one picture, so that none can be kept to validate with")
        return parted


def find_split(kind: str, root: Path | None, split: str | None, named: NamedFiles = NOTHING_NAMED) -> Split:
    """A split of a data set: in its folder, in whichever of the known layouts that has, or where the user says.

    Where a folder has no validation set, "val" is a tenth of the pictures, the same ones every time, and "train" the
    others. So it is with annotations that are named; all that is in them is the split None.

    Raises FileNotFoundError, saying what was looked for and what is there, ValueError for an unknown kind, or where
    files fit that mean different things.
    """
    if kind not in DATASET_KINDS:
        raise ValueError(f"data is {kind!r}; it must be one of {', '.join(DATASET_KINDS)}")
    if kind == "yolo" and named != NOTHING_NAMED:
        return _in_yolo_file(root, split, named)
    if named.annotations is not None:
        found = Split(kind, named.annotations.stem, _named_place(root, named.annotations, named.images))
        return found if split is None else _part_of(found, split)
    if root is None:
        raise ValueError("no data set is named: --root names its folder, --annotations its annotations")
    found = _in_folder(kind, root, split or "val")
    return found if named.images is None else replace(found, place=found.place._replace(images=(named.images,)))


def find_splits(
    kind: str, root: Path | None, train: NamedFiles = NOTHING_NAMED, val: NamedFiles = NOTHING_NAMED
) -> tuple[Split, Split]:
    """What is learnt from and what validates it. Raises what `find_split` does."""
    if val.annotations is not None:
        all_of_file = train.annotations is not None and kind != "yolo"  # whose file has splits of its own
        learnt = find_split(kind, root, None if all_of_file else "train", train)
        return replace(learnt, part="all"), find_split(kind, root, None, val)
    if kind != "yolo" and train.annotations is not None and root is not None and _search(kind, root, "val") is not None:
        return find_split(kind, root, None, train), find_split(kind, root, "val", val)
    # A share of the annotations that are named, if any are.
    return find_split(kind, root, "train", train), find_split(kind, root, "val", train if train.annotations else val)


def open_dataset(kind: str, root: Path, split: str, *, masks: bool) -> CocoDataset:
    """The data set of a folder. Raises what `find_split` and `Split.open` do."""
    return find_split(kind, root, split).open(masks=masks)


def kinds_of(root: Path) -> list[str]:
    """The kinds of data that a folder could hold, by its layout. Raises FileNotFoundError where there is none."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    kinds = [kind for kind in ("coco", "yolo", "voc", "coco-panoptic") if _could_be(kind, root, "train")]
    if not kinds:
        inner = next((path for path in sorted(root.iterdir()) if path.is_dir() and _is_any(path)), None)
        hint = f"; {inner} looks like one" if inner else "; --data says of which kind it is, and what is looked for"
        raise FileNotFoundError(f"{root} looks like no data set: there {layouts.contents_of(root)}{hint}")
    return kinds


def _is_any(root: Path) -> bool:
    return any(_could_be(kind, root, "train") for kind in _KINDS)


def _in_yolo_file(root: Path | None, split: str | None, named: NamedFiles) -> Split:
    """A split of a YOLO data set by the file that names its pictures, so that no others can be named."""
    if named.images is not None:
        raise ValueError(
            "the pictures of YOLO data are where its data.yaml says: leave out the option that names others"
        )
    return _in_folder("yolo", named.annotations or root or Path(), split or "val")


def _search(kind: str, root: Path, split: str | None) -> Place | None:
    return _KINDS[kind].search(root, split)


def _in_folder(kind: str, root: Path, split: str) -> Split:
    split = layouts.names_of(split)[0]
    place = _search(kind, root, split)
    if split not in ("train", "val") or (place if split == "val" else _search(kind, root, "val")):
        if place is None:
            raise _nothing_found(kind, root, split)
        return Split(kind, split, place)
    place = place or _search(kind, root, "train") or _search(kind, root, None)
    if place is None:
        raise _nothing_found(kind, root, split)
    return _part_of(Split(kind, split, place), split)


def _part_of(whole: Split, split: str) -> Split:
    names = layouts.names_of(split)
    if names[0] not in ("train", "val"):
        raise ValueError(f"{whole.place.annotations} has no split {split!r}: it is divided into train and val only")
    return replace(whole, name=names[0], part="learnt" if names[0] == "train" else "held out")


def _named_place(root: Path | None, annotations: Path, images: Path | None) -> Place:
    if images is not None:
        return Place("named", annotations, (images,))
    near = [folder for folder in (root, annotations.parent, annotations.parent.parent) if folder is not None]
    folders = [folder / name for folder in near for name in ("images", "data", "")]
    return Place("named", annotations, tuple(dict.fromkeys(folders)))


def _nothing_found(kind: str, root: Path, split: str) -> FileNotFoundError:
    """The complaint, with a hint where the folder is of another kind or a folder in it is meant."""
    if not root.is_dir():
        return FileNotFoundError(f"{root} has no split {split!r}" if root.exists() else f"there is no folder {root}")
    looked = ", ".join(pattern.replace("{split}", split) for pattern in dict.fromkeys(_KINDS[kind].looked_for))
    there = layouts.contents_of(root)
    return FileNotFoundError(
        f"{root} holds no {_KINDS[kind].what} of the split {split!r}: looked for {looked}; there {there}"
        f"{_hint(kind, root, split)}"
    )


def _hint(kind: str, root: Path, split: str) -> str:
    for inner in sorted(path for path in root.iterdir() if path.is_dir()):
        if _could_be(kind, inner, split):
            return f"; --root {inner} has them"
    for other in ("coco", "coco-panoptic", "yolo", "voc"):
        if _KINDS[other] is not _KINDS[kind] and _could_be(other, root, split):
            return f"; it looks like --data {other}"
    return "; --annotations and --images name other places"


def _could_be(kind: str, root: Path, split: str) -> bool:
    try:
        return any(_search(kind, root, name) is not None for name in (split, "train", None))
    except (OSError, ValueError):
        return False
