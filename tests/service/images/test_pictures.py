"""Pictures in the format that is wanted, where it can hold them."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from service.images.pictures import PictureFormat, encode_picture


@pytest.mark.parametrize("picture", ["png", "jpeg", "webp"])
def test_a_picture_is_written_in_each_format(picture: PictureFormat) -> None:
    body, media_type = encode_picture(Image.new("RGB", (40, 30), (77, 77, 77)), picture)
    assert media_type == f"image/{picture}"
    with Image.open(io.BytesIO(body)) as read:
        assert (read.format, read.size) == (picture.upper(), (40, 30))


@pytest.mark.parametrize(("picture", "side"), [("webp", 16_384), ("jpeg", 65_501)])
def test_a_side_that_a_format_cannot_hold_is_written_as_png(picture: PictureFormat, side: int) -> None:
    for width, height in ((1, side), (side, 1)):
        assert encode_picture(Image.new("RGB", (width, height)), picture)[1] == "image/png"
        shorter = min(width, side - 1), min(height, side - 1)
        assert encode_picture(Image.new("RGB", shorter), picture)[1] == f"image/{picture}"
