"""Annotated pictures are decoded as they are served, and turned so that their annotations fit."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.data.formats.coco_files import ImageRecord
from model.data.formats.picture_files import check_picture, open_picture, read_pixels
from model.runtime.decode import LARGEST, decode
from service.settings import Settings

WIDTH, HEIGHT = 30, 20


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A picture without any symmetry."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([rows * 9, columns * 7, 255 - rows * 3 - columns], axis=-1).astype(np.uint8))


def write(path: Path, image: Image.Image, orientation: int, image_format: str = "PNG", **options: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, image_format, exif=exif, **options)


def record(height: int, width: int, name: str = "a.png") -> ImageRecord:
    return ImageRecord(1, name, height, width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_it_is_served_where_its_annotations_fit_that(tmp_path: Path, orientation: int) -> None:
    write(tmp_path / "a.png", picture(), orientation)
    served = decode((tmp_path / "a.png").read_bytes(), LARGEST)
    annotated = record(*served.shape[:2])
    np.testing.assert_array_equal(read_pixels(tmp_path, annotated), served)
    # A turn by 180 degrees and a mirror image leave the size as it is: only EXIF says which frame is meant.
    assert check_picture(tmp_path, annotated) == ("either" if orientation in (2, 3, 4) else "displayed")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_picture_stays_as_it_is_stored_where_its_annotations_only_fit_that(tmp_path: Path, orientation: int) -> None:
    write(tmp_path / "a.png", picture(), orientation)
    np.testing.assert_array_equal(read_pixels(tmp_path, record(HEIGHT, WIDTH)), np.asarray(picture()))
    assert check_picture(tmp_path, record(HEIGHT, WIDTH)) == "stored"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_square_picture_is_turned_as_it_is_served(tmp_path: Path, orientation: int) -> None:
    write(tmp_path / "a.png", picture(HEIGHT, HEIGHT), orientation)
    served = decode((tmp_path / "a.png").read_bytes(), LARGEST)
    np.testing.assert_array_equal(read_pixels(tmp_path, record(HEIGHT, HEIGHT)), served)
    assert check_picture(tmp_path, record(HEIGHT, HEIGHT)) == ("either" if orientation > 1 else "displayed")


@pytest.mark.parametrize("read", [read_pixels, check_picture])
@pytest.mark.parametrize(("orientation", "displayed"), [(1, "30 x 20"), (3, "30 x 20"), (6, "20 x 30")])
def test_annotations_that_fit_neither_way_are_refused(
    tmp_path: Path, read: Callable[[Path, ImageRecord], object], orientation: int, displayed: str
) -> None:
    write(tmp_path / "a.png", picture(), orientation)
    with pytest.raises(ValueError, match=f"image 1, .*a.png, is {displayed} pixels but annotated as 30 x 21"):
        read(tmp_path, record(21, 30))


@pytest.mark.parametrize("read", [read_pixels, check_picture])
@pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF"])
def test_a_format_that_the_service_refuses_is_named_with_its_file(
    tmp_path: Path, read: Callable[[Path, ImageRecord], object], image_format: str
) -> None:
    picture().save(tmp_path / "a.png", image_format)
    with pytest.raises(ValueError, match=rf"^image 1, .*a\.png, is a {image_format} file: pictures have"):
        read(tmp_path, record(HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not an image"),
        (b"hello", "it is not an image"),
        (b"\x89PNG\r\n\x1a\n", "the PNG image is broken or incomplete"),
    ],
)
def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^a name cannot be decoded: {reason}$"), open_picture(path, "a name"):
        pass


def test_a_picture_on_disk_may_be_as_large_as_one_that_a_service_can_be_told_to_accept() -> None:
    Settings(max_pixels=LARGEST.max_pixels, max_side=LARGEST.max_side)
    for name in ("max_pixels", "max_side"):
        with pytest.raises(ValueError, match=name):
            Settings(**{name: getattr(LARGEST, name) + 1})


def test_what_is_read_may_be_drawn_on(tmp_path: Path) -> None:
    write(tmp_path / "a.png", picture(), 1)
    read_pixels(tmp_path, record(HEIGHT, WIDTH))[:] = 0


def jpeg(seed: int, **options: Any) -> bytes:
    rng = np.random.default_rng(seed)
    pixels: NDArray[np.uint8] = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.repeat(9, axis=0).repeat(9, axis=1)).save(file, "JPEG", **options)
    return file.getvalue()


def fails(read: Callable[[Path, ImageRecord], object], folder: Path) -> bool:
    try:
        read(folder, record(45, 63, "x.jpg"))
    except ValueError:
        return True
    return False


@settings(max_examples=120)
@given(cut=st.floats(0, 1), progressive=st.booleans(), seed=st.integers(0, 3))
def test_a_jpeg_passes_the_check_exactly_if_it_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, cut: float, progressive: bool, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = jpeg(seed, progressive=progressive)
    (folder / "x.jpg").write_bytes(whole[: round(cut * len(whole))])
    assert fails(check_picture, folder) == fails(read_pixels, folder)
    if cut == 1:
        assert not fails(check_picture, folder)
    if cut < 0.9:
        assert fails(check_picture, folder)
