"""What COCO's instance and panoptic annotations have in common as torch data sets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from model.data.formats.annotations import Annotations
from model.data.formats.coco_files import ImageRecord, Target, read_categories, read_records
from model.data.formats.file_names import FileNames
from model.data.formats.mask_layers import MaskLayers
from model.data.formats.objects import Objects, clipped_xyxy
from model.data.formats.picture_files import read_pixels

_LOOKED_AT = 10  # pictures by which their folder is known; one or the other may be missing


class CocoDataset(Dataset[tuple[Tensor, Target]], ABC):
    """The pictures of an annotation file; a subclass reads what is annotated in each."""

    objects: Objects

    def __init__(
        self,
        read: Annotations,
        annotations: Path,
        images: Path | Sequence[Path],
        masks: bool,
    ) -> None:
        """Take over what was read of an annotation file: its categories, ordered by id, are the classes by index.

        Of several folders the one counts that holds the first pictures.

        Raises ValueError if one of its pictures is malformed, or its name could be several files.
        """
        self.annotations = annotations
        self.notes = read.notes
        self.root_id = read.root_id
        self.categories = read_categories(read.content, annotations)
        records = read_records(read.content, annotations)
        folders = [images] if isinstance(images, Path) else images
        self.images = read.images or _folder_of(records, folders)
        self.records, self.renamed = _with_files(records, self.images, annotations)
        self.masks = masks

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every picture, without decoding any."""
        return [(record.height, record.width) for record in self.records]

    def __len__(self) -> int:
        """Number of pictures, those without an object included."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Decode one item, the picture as RGB, uint8 [3, height, width]; raises what `target` and `read_pixels` do."""
        target = self.target(index)
        pixels = torch.from_numpy(read_pixels(self.images, self.records[index]))
        return tv_tensors.Image(pixels.permute(2, 0, 1).contiguous()), target

    @abstractmethod
    def target(self, index: int) -> Target:
        """What is in one picture."""


def _folder_of(records: Sequence[ImageRecord], folders: Sequence[Path]) -> Path:
    """The first folder that has one of the first pictures under its name, or else under one written differently.

    Where none has, pictures are missing, and the likeliest folder is where: the last is the root, and never that.
    """
    names = [record.file_name for record in records[:_LOOKED_AT]]
    there = [folder for folder in folders if folder.is_dir()]
    as_it_is = (folder for folder in there if any((folder / name).is_file() for name in names))
    otherwise = (folder for folder in there if any(map(FileNames(folder).has, names)))
    missing = next((folder for folder in folders[:-1] if folder.is_dir()), folders[0])
    return next(chain(as_it_is, otherwise), missing)


def _with_files(
    records: Sequence[ImageRecord], folder: Path, annotations: Path
) -> tuple[tuple[ImageRecord, ...], tuple[tuple[str, str], ...]]:
    """The records with the names that their files have in a folder, and those that differ: annotated and found."""
    try:
        files = FileNames(folder).find([record.file_name for record in records])
    except ValueError as error:
        raise ValueError(f"{annotations}: {error}") from error
    pairs = [(record.file_name, file) for record, file in zip(records, files, strict=True) if record.file_name != file]
    found = (replace(record, file_name=file) for record, file in zip(records, files, strict=True))
    return tuple(found), tuple(pairs)


def _as_int64(image_id: int) -> int:
    """An id as a tensor takes it: one beyond its largest, as hashes of 64 bits are, is the number of the same bits."""
    return image_id - 2**64 if image_id >= 2**63 else max(image_id, -(2**63))


def make_target(
    record: ImageRecord, labels: NDArray[np.int64], boxes_xyxy: Tensor, layers: MaskLayers | None
) -> Target:
    """Gather a target, leaving out boxes without an area.

    Args:
        record: the picture it belongs to.
        labels: m class indices.
        boxes_xyxy: [m, 4], absolute pixels; clipped to the picture here.
        layers: the m masks, or None.
    """
    size = torch.tensor([record.height, record.width])
    boxes, kept = clipped_xyxy(boxes_xyxy.to(torch.float32).reshape(-1, 4), size)
    target: Target = {
        "image_id": torch.tensor(_as_int64(record.id)),
        "orig_size": size,
        "size": size.clone(),
        "labels": torch.tensor(labels, dtype=torch.int64)[kept],
        "boxes": tv_tensors.BoundingBoxes(
            boxes[kept],
            format=tv_tensors.BoundingBoxFormat.XYXY,
            canvas_size=(record.height, record.width),
        ),
    }
    if layers is not None:
        # The masks of those left out stay in their layer, where no value asks for them.
        target["mask_ids"] = tv_tensors.Mask(layers.mask_ids)
        target["mask_values"] = layers.mask_values[kept]
    return target
