"""Checks a data set before the first step of training, and counts what is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from model.data.formats.coco import CocoDetection
from model.data.formats.coco_dataset import CocoDataset
from model.data.formats.coco_panoptic import CocoPanoptic
from model.data.formats.id_png import check_id_png
from model.data.formats.objects import boxes_xywh_to_xyxy, clipped_xyxy
from model.data.formats.picture_files import Frame, check_picture

PICTURES_A_TASK = 64  # enough that handing out work costs nothing beside it, few enough to stop soon at a complaint
ROUNDING = 0.5  # pixels that a box may reach outside its picture without being counted
NAMED_CLASSES = 8  # of a kind in a report


@dataclass(frozen=True)
class DatasetReport:
    """What is in a data set. `str` of it is for people."""

    name: str  # of the annotation file
    images: int
    images_without_objects: int
    boxes: tuple[tuple[str, int], ...]  # name of each class, by index, and how many boxes it has
    degenerate: int  # boxes left out because nothing of them is inside their picture
    outside: int  # boxes that reach outside their picture and are clipped
    masks_outside: int  # polygons that reach outside their picture and are clipped
    crowds: int  # left out
    repeated: tuple[str, ...]  # file names of pictures that are listed under several ids
    notes: tuple[str, ...]  # what else of the files is left out, or taken in another way than written, and why
    # File names of pictures that EXIF turns, in their order:
    either_way: tuple[str, ...]  # learnt as displayed, though their annotated size would fit them as stored as well
    renamed: tuple[tuple[str, str], ...]  # names that are written differently in the annotations: there, and the file
    as_stored: tuple[str, ...]  # learnt as stored, because their annotated size only fits that; served as displayed

    def __str__(self) -> str:
        seen = sorted((pair for pair in self.boxes if pair[1]), key=lambda pair: -pair[1])
        lines = [
            f"{self.name}: {self.images:,} images, {self.images_without_objects:,} of them without an object",
            f"  boxes: {sum(count for _, count in seen):,}, in {len(seen)} of {len(self.boxes)} classes: "
            + _first([f"{name} {count:,}" for name, count in seen]),
            f"  boxes that reach outside their picture: {self.outside:,}, clipped",
            *self._odd(),
            f"  left out: {self.degenerate:,} boxes without an area, {self.crowds:,} crowds",
        ]
        lines += [f"  {note}" for note in self.notes]
        if len(seen) < len(self.boxes):
            lines.append(f"  classes without a box: {_first([name for name, count in self.boxes if not count])}")
        for names, what in (
            (self.either_way, "that EXIF turns and whose size fits both ways, taken as displayed"),
            (self.as_stored, "annotated as stored and taken so, though the service turns them by EXIF"),
        ):
            if names:
                lines.append(f"  pictures {what}: {len(names):,}, {_first(list(names))}")
        if self.renamed:
            annotated, file = self.renamed[0]
            lines.append(f"  file names written differently: {len(self.renamed):,}, such as {annotated!a} for {file!a}")
        return "\n".join(lines)

    def _odd(self) -> Iterator[str]:
        """What may be meant so, and may be a mistake."""
        if self.masks_outside:
            yield f"  objects whose polygons reach outside their picture: {self.masks_outside:,}, clipped"
        if 2 * self.images_without_objects > self.images:
            yield "  most pictures have no object, and teach what is none: leave out those that nobody has annotated"
        if self.repeated:
            yield (
                f"  pictures that are listed under several ids, with objects of their own under each: "
                f"{len(self.repeated):,}, {_first(list(self.repeated))}"
            )


def _first(words: list[str]) -> str:
    rest = f" and {len(words) - NAMED_CLASSES} more" if len(words) > NAMED_CLASSES else ""
    return ", ".join(words[:NAMED_CLASSES]) + rest


class NoObjectError(ValueError):
    """Nothing is annotated that could be learnt or judged."""


def check_dataset(data: CocoDataset, *, workers: int) -> DatasetReport:
    """Look at every file of a data set once, in so many threads (at least one), and count what is annotated.

    Raises:
        FileNotFoundError: naming the first picture, in the order of the data, that is not there.
        ValueError: naming the first that cannot be decoded, is in a format that the service refuses, or has another
            size than annotated, likewise for the id PNGs of panoptic data with masks.
        NoObjectError: nothing is annotated, a ValueError.
    """
    report = _report(data)
    if not any(count for _, count in report.boxes):
        raise NoObjectError(f"{data.annotations} has no object in any of its {len(data)} images: {_why_nothing(data)}")
    if not data.images.is_dir():
        raise FileNotFoundError(f"there is no folder {data.images}, where the images of {data.annotations} should be")
    # Pillow decodes without holding the interpreter's lock, so threads are enough.
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        tasks = pool.map(lambda first: _check_files(data, first), range(0, len(data), PICTURES_A_TASK))
        frames = [frame for task in tasks for frame in task]
    finally:
        pool.shutdown(cancel_futures=True)  # an error, or a signal, does not wait for what has not begun
    names: dict[Frame, list[str]] = {"displayed": [], "either": [], "stored": []}
    for record, frame in zip(data.records, frames, strict=True):
        names[frame].append(record.file_name)
    return replace(report, either_way=tuple(names["either"]), as_stored=tuple(names["stored"]))


def _why_nothing(data: CocoDataset) -> str:
    if data.objects.crowds and not len(data.objects.labels):
        return (
            f"all its {data.objects.crowds} annotations are crowds (iscrowd 1), which are left out; set iscrowd to 0 "
            "for single objects"
        )
    return "nothing can be learnt from it or judged by it"


def check_categories(train: CocoDataset, val: CocoDataset) -> None:
    """Raise ValueError, naming both files and the category, unless two data sets have the same ids and names.

    A category that only one leaves out, because nothing in it is of it, is no difference.
    """
    ours, theirs = ({category.id: category.name for category in data.categories} for data in (train, val))
    for id_ in sorted(ours.keys() | theirs.keys()):
        if ours.get(id_) != theirs.get(id_) and not (id_ not in theirs and id_ == val.root_id):
            here, there = (repr(names[id_]) if id_ in names else "missing" for names in (ours, theirs))
            raise ValueError(
                f"category {id_} is {here} in {train.annotations} but {there} in {val.annotations}: "
                "training and validation need the same categories"
            )


def _check_files(data: CocoDataset, first: int) -> list[Frame]:
    """The frame that each picture of a task is annotated in."""
    frames = []
    for index in range(first, min(first + PICTURES_A_TASK, len(data))):
        frames.append(check_picture(data.images, data.records[index]))
        if isinstance(data, CocoPanoptic) and data.masks:
            check_id_png(data.segments, data.png(index))
    return frames


def _report(data: CocoDataset) -> DatasetReport:
    objects = data.objects
    boxes = boxes_xywh_to_xyxy(objects.boxes_xywh)
    pictures = objects.pictures
    clipped, kept = clipped_xyxy(boxes, torch.tensor(data.sizes)[pictures])
    usable: NDArray[np.bool_] = kept.numpy()
    outside = (boxes - clipped).abs().amax(dim=1).gt(ROUNDING).numpy() & usable
    counts = np.bincount(objects.labels[usable], minlength=len(data.categories)).tolist()
    return DatasetReport(
        name=data.annotations.name,
        images=len(data),
        images_without_objects=len(data) - len(np.unique(pictures[usable])),
        boxes=tuple((category.name, count) for category, count in zip(data.categories, counts, strict=True)),
        degenerate=int((~usable).sum()),
        outside=int(outside.sum()),
        masks_outside=_polygons_outside(data),
        crowds=objects.crowds,
        repeated=tuple(name for name, count in Counter(r.file_name for r in data.records).items() if count > 1),
        notes=data.notes,
        either_way=(),
        renamed=data.renamed,
        as_stored=(),
    )


def _polygons_outside(data: CocoDataset) -> int:
    """How many objects have polygons, where these were read, that reach outside their picture."""
    if not isinstance(data, CocoDetection) or data.instances.segmentations is None:
        return 0
    outside = 0
    for picture, mask in zip(data.instances.pictures.tolist(), data.instances.segmentations, strict=True):
        record = data.records[picture]
        if isinstance(mask, tuple) and mask:
            corners = np.concatenate(mask).reshape(-1, 2)
            beyond = np.maximum(-corners, corners - (record.width, record.height))
            outside += bool(beyond.max() > ROUNDING)
    return outside
