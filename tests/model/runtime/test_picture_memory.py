"""Pictures in memory of ours are Pillow's own."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.runtime.decode import LARGEST, decode
from model.runtime.image_formats import OPTIONAL, open_formats
from model.runtime.picture_memory import give_memory, picture_in, white
from tests.service.conftest import encode

ALL_FORMATS = replace(LARGEST, formats=open_formats(OPTIONAL))


def large(mode: str) -> Image.Image:
    """Of more than 8 MiB in memory."""
    values = np.random.default_rng(0).integers(0, 256, (31, 41, 3), dtype=np.uint8)
    picture = Image.fromarray(values).resize((1800, 1301)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(picture.convert("L"))
    return picture


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("RGBA", "WEBP"),
        ("RGBA", "AVIF"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
        ("RGBA", "HEIF"),
    ],
)
def test_a_large_picture_is_decoded_into_it(mode: str, image_format: str) -> None:
    file = encode(large(mode), image_format)
    with Image.open(io.BytesIO(file)) as ours, Image.open(io.BytesIO(file)) as theirs:
        give_memory(ours)
        before = ours.im
        assert ours.tobytes() == theirs.tobytes()
        assert ours.im is before
        assert ours.mode == theirs.mode
        rgb = theirs.convert("RGB")
        if mode == "RGBA":
            rgb = Image.new("RGB", theirs.size, "white")
            rgb.paste(theirs, mask=theirs)
    np.testing.assert_array_equal(decode(file, ALL_FORMATS), np.asarray(rgb))


def test_a_picture_is_written_where_its_pixels_are() -> None:
    pixels = np.zeros((3, 5, 4), dtype=np.uint8)
    picture = picture_in(pixels, "RGB")
    picture.putpixel((4, 2), (1, 2, 3))
    assert (picture.mode, picture.size) == ("RGB", (5, 3))
    assert pixels[2, 4, :3].tolist() == [1, 2, 3]


def test_white_is_white() -> None:
    assert white((5, 3)).tobytes() == Image.new("RGB", (5, 3), "white").tobytes()
