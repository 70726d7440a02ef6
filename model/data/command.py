"""The command `detr data`: what would be learnt from a data set, and a validation set for one that has none."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model.data.check import DatasetReport, check_categories, check_dataset
from model.data.formats.annotations import HELD_OUT, SEED, Annotations, held_out_ids, only_pictures
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.folders import NamedFiles, Split, find_split, kinds_of
from model.data.options import add_file_arguments, add_kind_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr data`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = "Say what would be learnt from a data set: its classes, sizes and splits, what is left out, and why."
    split = (
        "Choose the pictures of a validation set, and write the annotations of both parts to two files of COCO's JSON."
    )
    for name, text in (("check", check), ("split", split)):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument(
            "root", type=Path, metavar="DIR", help="Read the data set in this folder, as the annotation tool wrote it."
        )
        add_kind_argument(action, required=False, default="The default is what the folder looks like.")
        add_file_arguments(action)
        if name == "split":
            _add_share_arguments(action)


def _add_share_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--share",
        type=float,
        default=HELD_OUT,
        metavar="FRACTION",
        help="Validate with this share of the pictures. The default is %(default)s.",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=SEED,
        metavar="NUMBER",
        help="Choose other pictures for another number. The default is %(default)s.",
    )


def run(args: argparse.Namespace) -> None:
    """Carry out `detr data`; what goes wrong ends in one clear line."""
    try:
        {"check": check, "split": split}[args.action](args)
    except (OSError, ValueError) as error:
        raise SystemExit(f"detr data {args.action}: {error}") from error


def check(args: argparse.Namespace) -> None:
    """Print what there is. Raises what finding, opening and checking raise, where something cannot be learnt from."""
    kind = _kind(args)
    opened: dict[str, CocoDataset] = {}
    reports: dict[str, DatasetReport] = {}
    for name in ("train", "val", "test"):
        try:
            found = find_split(kind, args.root, name, NamedFiles(args.annotations, args.images))
        except (FileNotFoundError, ValueError):
            if name != "test":
                raise
            continue
        data, masks = _opened(found)
        print(found.describe(data))
        reports[name] = check_dataset(data, workers=os.cpu_count() or 1)
        for line in (str(reports[name]), *_sizes(data), masks):
            print(line)
        check_categories(opened.setdefault("train", data), data)
    print("\n".join(_table(reports)))
    print(f"learn from it with: detr train --data {kind} --root {args.root}")


def _kind(args: argparse.Namespace) -> str:
    """The kind of data that is named, or what the folder looks like."""
    if args.data:
        return str(args.data)
    first, *others = kinds_of(args.root)
    if others:
        print(f"{args.root} could be read as --data {' or '.join(others)}, too")
    return first


def _opened(split: Split) -> tuple[CocoDataset, str]:
    """The data set and, for people, whether masks can be learnt from it."""
    try:
        return split.open(masks=True), "  masks: every object has one"
    except ValueError as error:
        data = split.open(masks=False)  # which may raise for the same reason
        return data, f"  masks: none are learnt, because {error}"


def _sizes(data: CocoDataset) -> Iterator[str]:
    """How large pictures and objects are, in lines for people."""
    pictures = sorted((width, height) for height, width in data.sizes)
    sides = np.sort(data.objects.boxes_xywh[:, 2:].max(axis=1))
    smallest, middle, largest = (pictures[i] for i in (0, len(pictures) // 2, -1))
    shown = " to ".join(f"{width} x {height}" for width, height in dict.fromkeys((smallest, largest)))
    yield f"  sizes of pictures: {shown} pixels, half of them up to {middle[0]} wide"
    low, half, high = (sides[i] for i in (0, len(sides) // 2, -1))
    yield f"  longer sides of boxes: {low:.0f} to {high:.0f} pixels, half of them up to {half:.0f}"
    yield f"  objects in a picture: up to {int(np.diff(data.objects.starts).max())}"


def _table(reports: dict[str, DatasetReport]) -> Iterator[str]:
    """The number of boxes of every class in every split."""
    counts: dict[str, list[int]] = {}
    for position, report in enumerate(reports.values()):
        for name, count in report.boxes:
            counts.setdefault(name, [0] * len(reports))[position] += count
    wide = max(len("boxes of"), *map(len, counts))
    yield "  ".join(["boxes of".ljust(wide), *(f"{name:>9}" for name in reports)])
    for name, row in counts.items():
        yield "  ".join([name.ljust(wide), *(f"{count:9,}" for count in row)])


def split(args: argparse.Namespace) -> None:
    """Write the two files. Raises what finding and opening raise, and FileExistsError where one is there already."""
    if not 0 < args.share < 1:
        raise ValueError(f"--share must be between 0 and 1, not {args.share:g}")
    kind, named = _kind(args), NamedFiles(args.annotations, args.images)
    if (val := find_split(kind, args.root, "val", named)).part == "all":
        raise ValueError(f"{args.root} has a validation set already: {val.place.annotations}")
    if val.panoptic is not None:
        raise ValueError("only annotations of things are split: those of --data coco, yolo and voc")
    whole = replace(val, part="all")
    data, read = whole.open(masks=False), whole.read()
    files = {name: args.root / "annotations" / f"instances_{name}.json" for name in ("train", "val")}
    for file in files.values():
        if file.exists():
            raise FileExistsError(f"{file} is there already, and nothing is written over it")
    ids = held_out_ids(read.content["images"], args.share, args.seed)
    for name, file in files.items():
        part = only_pictures(read, ids, kept=name == "val")
        _write(file, _as_coco(part, data, args.root))
        print(
            f"wrote {file}: {len(part.content['images']):,} pictures, {len(part.content['annotations']):,} annotations"
        )
    print(f"learn from it with: detr train --data coco --root {args.root}")


def _as_coco(part: Annotations, data: CocoDataset, root: Path) -> dict[str, Any]:
    """The content with the names that the pictures have below the root, and whole numbers as ids."""
    names = {record.id: _below(root, data.images / record.file_name) for record in data.records}
    images = [image | {"file_name": names[image["id"]]} for image in part.content["images"]]
    entries: Sequence[Any] = part.content["annotations"]
    numbered = [entry | {"id": number} for number, entry in enumerate(entries, 1)]
    return part.content | {"images": images, "annotations": numbered}


def _below(root: Path, path: Path) -> str:
    root, path = root.resolve(), path.resolve()
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("x", encoding="utf-8") as out:
        json.dump(content, out)
