from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service.bench.pictures import COCO_SIZES, PictureError, pictures_of, sizes_of_mix, synthetic_pictures


@given(st.integers(1, 600))
def test_sizes_are_as_frequent_as_in_the_mix(count: int) -> None:
    found = Counter(sizes_of_mix(count))
    total = sum(COCO_SIZES.values())
    assert sum(found.values()) == count
    for size, frequency in COCO_SIZES.items():
        assert abs(found[size] - count * frequency / total) <= 1


def test_synthetic_pictures_are_jpegs_of_these_sizes_and_all_different() -> None:
    pictures = synthetic_pictures(8, scale=0.25)
    opened = [Image.open(io.BytesIO(picture)) for picture in pictures]
    assert [image.format for image in opened] == ["JPEG"] * 8
    assert [image.size for image in opened] == [(round(w / 4), round(h / 4)) for h, w in sizes_of_mix(8)]
    assert len(set(pictures)) == 8
    assert synthetic_pictures(8, scale=0.25) == pictures


def test_they_weigh_what_photos_weigh() -> None:
    (picture,) = synthetic_pictures(1)
    height, width = sizes_of_mix(1)[0]
    assert 1 < 8 * len(picture) / (height * width) < 4  # bits a pixel


def test_a_folder_s_pictures_are_sent_as_they_are(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "c.webp", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert pictures_of(tmp_path) == [b"a.png", b"b.JPG", b"c.webp"]


def test_a_folder_without_pictures_and_no_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="has no JPEG, PNG or WebP files"):
        pictures_of(tmp_path)
    with pytest.raises(PictureError, match=r"cannot read .*absent: No such file"):
        pictures_of(tmp_path / "absent")
