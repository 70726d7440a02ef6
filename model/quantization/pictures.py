"""The pictures that ranges are observed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.data.formats.picture_files import open_picture
from model.runtime.preprocess import resize
from model.runtime.resize_rule import ResizeRule

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FEWEST = 8  # with fewer, ranges are those of single pictures


def choose_pictures(folder: Path, count: int) -> list[Path]:
    """Pictures of a folder and those below it: all, or `count` at random, but the same ones every time.

    Raises NotADirectoryError where there is no such folder, ValueError if it has fewer than `FEWEST` pictures.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    if count < FEWEST:
        raise ValueError(f"calibration needs {FEWEST} pictures or more, not {count}")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if len(found) < FEWEST:
        kinds = ", ".join(SUFFIXES)
        raise ValueError(f"{folder} holds {len(found)} pictures ({kinds}); calibration needs {FEWEST} or more")
    if len(found) <= count:
        return found
    chosen = np.random.default_rng(0).choice(len(found), count, replace=False)
    return [found[i] for i in sorted(chosen)]


def resized_pictures(paths: Sequence[Path], rule: ResizeRule) -> Iterator[NDArray[np.uint8]]:
    """RGB uint8 [h, w, 3] each, decoded and resized as in the service. Raises ValueError naming one it would refuse."""
    for path in paths:
        with open_picture(path, str(path)) as image:
            pixels = image.decode(image.turn).image
        yield resize(pixels, rule)
