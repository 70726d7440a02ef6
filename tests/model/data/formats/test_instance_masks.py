"""Segmentations of instances: what is a mask, and what is refused before anything decodes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from model.data.formats.coco_files import ImageRecord
from model.data.formats.instance_masks import decode_mask, read_segmentation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

RECORD = ImageRecord(42, "a.png", 6, 8)
SQUARE = [1, 1, 4, 1, 4, 3, 1, 3]


def read(segmentation: Any) -> Any:
    return read_segmentation({"segmentation": segmentation}, RECORD, "f.json: annotation 9")


@given(seed=st.integers(0, 2**32 - 1))
def test_run_lengths_compressed_or_not_are_the_mask_they_were_made_of(seed: int) -> None:
    mask = np.random.default_rng(seed).random((6, 8)) < 0.4
    compressed = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    text = {"size": [6, 8], "counts": compressed["counts"].decode("ascii")}
    columns = mask.T.ravel()
    edges = np.flatnonzero(np.diff(columns)) + 1
    counts = np.diff([0, *edges, mask.size]).tolist()
    listed = {"size": [6, 8], "counts": [0, *counts] if columns[0] else counts}
    for segmentation in (text, listed):
        assert np.array_equal(decode_mask(read(segmentation), RECORD), mask)


def test_several_polygons_are_one_mask() -> None:
    mask = decode_mask(read([SQUARE, [5, 3, 8, 3, 8, 6, 5, 6]]), RECORD)
    assert int(mask.sum()) == 6 + 9
    assert bool(mask[1:3, 1:4].all())


def test_a_polygon_of_two_corners_encloses_nothing() -> None:
    assert np.array_equal(decode_mask(read([SQUARE, [0, 0, 8, 6]]), RECORD), decode_mask(read([SQUARE]), RECORD))
    assert not decode_mask(read([[0, 0, 8, 6]]), RECORD).any()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ([], "no segmentation"),
        (None, "no segmentation"),
        ([[1, 2, 3, 4, 5]], "polygon that is not"),
        ([[1, 1, 4, 1, 4, float("nan")]], "polygon that is not"),
        ([[1, 1, 4, 1, 1e12, 1]], "polygon that is not"),
        ([["a"] * 6], "polygon that is not"),
        ([[[1, 1], [4, 1], [4, 3]]], "polygon that is not"),
        ({"counts": [48]}, "has no size"),
        ({"size": [6, 8]}, "has no counts"),
        ({"size": [8, 6], "counts": [48]}, r"for size \[8, 6\], but its picture is \[6, 8\]"),
        ({"size": [6, 8], "counts": [12, 6]}, "do not add up to the 48 pixels"),
        ({"size": [6, 8], "counts": [-1, 49]}, "do not add up to the 48 pixels"),
        ({"size": [6, 8], "counts": None}, "has counts None: it must be a list or a string"),
    ],
)
def test_what_is_no_mask_is_named_with_its_annotation(segmentation: Any, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^f\.json: annotation 9 has.*{said}|^f\.json: annotation 9 {said}"):
        read(segmentation)


def test_an_annotation_without_a_segmentation_is_named() -> None:
    with pytest.raises(ValueError, match="annotation 9 has no segmentation"):
        read_segmentation({}, RECORD, "f.json: annotation 9")


@given(sides=st.tuples(st.integers(1, 90), st.integers(1, 90)), seed=st.integers(0, 2**32 - 1))
def test_compressed_run_lengths_must_cover_the_picture_exactly(sides: tuple[int, int], seed: int) -> None:
    height, width = sides
    mask = np.repeat(np.random.default_rng(seed).random((height, -(-width // 9))) < 0.4, 9, axis=1)[:, :width]
    counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
    assert np.array_equal(decode_mask({"size": sides, "counts": counts}, ImageRecord(1, "a.png", height, width)), mask)
    for record in (ImageRecord(1, "a.png", height + 1, width), ImageRecord(1, "a.png", height, width + 1)):
        size = [record.height, record.width]
        with pytest.raises(ValueError, match=f"do not add up to {size[0] * size[1]} pixels"):
            decode_mask({"size": size, "counts": counts}, record)
