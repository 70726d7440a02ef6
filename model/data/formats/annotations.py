"""What is annotated, in COCO's form, whatever format it was read from; and a share of it for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.data.formats.json_fields import whole_number

HELD_OUT = 0.1  # of the pictures, where a data set has no validation set
SEED = 0  # of the share that is held out: one for every run, so that no run learns what another is judged by


@dataclass(frozen=True)
class Annotations:
    """COCO's `images`, `annotations` and `categories`, as they were read or made of another format."""

    content: dict[str, Any]
    notes: tuple[str, ...] = ()  # what of the files is left out, or taken in another way than it is written, and why
    root_id: int | None = None  # of the category that `without_root` left out
    images: Path | None = None  # the folder of the pictures, where the reader has found it


def without_root(read: Annotations) -> Annotations:
    """Leave out a category that only names all others together: the super-category of each, and of no object.

    Tools write one, as category 0, so that the others have something above them. A class of it would have nothing to
    learn from.
    """
    categories = read.content["categories"]
    used = {_whole(entry, "category_id") for entry in read.content["annotations"]}
    for root in categories:
        others = [category for category in categories if category is not root]
        above_all = bool(others) and all(other.get("supercategory") == root.get("name") for other in others)
        if above_all and root.get("name") is not None and root["id"] not in used:
            name = f"category {root['id']}, {str(root['name'])!a}"
            said = f"left out: {name}, which all others are below, and no object is of"
            content = read.content | {"categories": others}
            return replace(read, content=content, notes=(*read.notes, said), root_id=root["id"])
    return read


def held_out_ids(images: Collection[dict[str, Any]], share: float = HELD_OUT, seed: int = SEED) -> frozenset[int]:
    """The ids of the pictures that are kept for validation: a share of them, but one at least, and never all.

    Those whose names, without their folders and mixed with the seed, have the smallest digests: the same ones on every
    machine, in any order and from whatever format, and mostly the same where pictures are added.
    """
    count = min(max(1, round(share * len(images))), len(images) - 1)
    return frozenset(image["id"] for image in sorted(images, key=lambda image: _rank(image, seed))[:count])


def _rank(image: dict[str, Any], seed: int) -> tuple[str, str]:
    path = str(image.get("file_name")).replace("\\", "/")
    name = path.rpartition("/")[2]
    return hashlib.sha256(f"{seed} {name}".encode(errors="replace")).hexdigest(), path


def only_pictures(read: Annotations, ids: Collection[int], *, kept: bool) -> Annotations:
    """Some of the pictures and what is annotated in them: those of the ids, or where `kept` is false all others."""
    content = read.content
    images = [image for image in content["images"] if (image["id"] in ids) is kept]
    dropped = {image["id"] for image in content["images"] if (image["id"] in ids) is not kept}
    # An entry whose picture is unknown stays, for the complaint about it.
    entries = [entry for entry in content["annotations"] if _whole(entry, "image_id") not in dropped]
    return replace(read, content=content | {"images": images, "annotations": entries})


def _whole(entry: Any, name: str) -> int | None:
    try:
        return whole_number(entry, name, "")
    except ValueError:
        return None
