"""Pictures in memory of ours are Pillow's own."""

from __future__ import annotations

import io
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime.decode import LARGEST, BrokenImageError, decode
from model.runtime.image_formats import OPTIONAL, open_formats
from model.runtime.kept_blocks import PICTURE_BLOCKS
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
        ("RGBA", "AVIF"),
        ("RGB", "BMP"),
        ("RGB", "TIFF"),
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


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        ("RGB", "JPEG"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("RGB", "BMP"),
        ("RGBA", "TIFF"),
    ],
)
def test_in_memory_that_was_kept_a_picture_is_the_same(
    mode: str, image_format: str, request: pytest.FixtureRequest
) -> None:
    file = encode(large(mode), image_format)
    expected = decode(file, ALL_FORMATS)
    request.addfinalizer(PICTURE_BLOCKS.give_back)
    request.addfinalizer(lambda: PICTURE_BLOCKS.keep(0))
    PICTURE_BLOCKS.keep(2)
    dirty = [PICTURE_BLOCKS.array(10**7) for _ in range(2)]
    for array in dirty:
        array.fill(0x55)
    del dirty, array
    np.testing.assert_array_equal(decode(file, ALL_FORMATS), expected)


def test_a_picture_is_written_where_its_pixels_are() -> None:
    pixels = np.zeros((3, 5, 4), dtype=np.uint8)
    picture = picture_in(pixels, "RGB")
    picture.putpixel((4, 2), (1, 2, 3))
    assert (picture.mode, picture.size) == ("RGB", (5, 3))
    assert pixels[2, 4, :3].tolist() == [1, 2, 3]


def test_white_is_white() -> None:
    assert white((5, 3)).tobytes() == Image.new("RGB", (5, 3), "white").tobytes()


jpegs = st.fixed_dictionaries({"progressive": st.booleans(), "subsampling": st.sampled_from([0, 1, 2])})
webps = st.fixed_dictionaries({"lossless": st.booleans(), "method": st.just(0)})


@given(
    kind=st.one_of(st.tuples(st.just("JPEG"), jpegs), st.tuples(st.just("WEBP"), webps)),
    mode=st.sampled_from(["RGB", "RGBA"]),
    data=st.data(),
)
def test_of_a_damaged_picture_nothing_is_seen_that_was_in_memory_before(
    kind: tuple[str, dict[str, int]], mode: str, data: st.DataObject
) -> None:
    image_format, options = kind
    small = large(mode if image_format == "WEBP" else "RGB").resize((70, 50))
    file = bytearray(encode(small, image_format, **options))
    for _ in range(data.draw(st.integers(0, 4))):
        file[data.draw(st.integers(100, len(file) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        file = file[: data.draw(st.integers(100, len(file)))]
    found = []
    for left in (0x55, 0xAA):
        empty = lambda shape, dtype, left=left: np.full(shape, left, dtype=dtype)  # noqa: E731
        with pytest.MonkeyPatch.context() as patch, suppress(BrokenImageError):
            patch.setattr("model.runtime.picture_memory.np.empty", empty)
            found.append(decode(file, LARGEST))
    assert len(found) in (0, 2)
    assert not found or (found[0] == found[1]).all()


@pytest.mark.parametrize(("image_format", "pixels"), [("JPEG", b"\xff\xda"), ("PNG", b"IDAT")])
def test_a_file_that_ends_before_its_pixels_is_broken(image_format: str, pixels: bytes) -> None:
    for picture in (large("RGB"), large("RGB").resize((70, 50))):
        file = encode(picture, image_format)
        with pytest.raises(BrokenImageError):
            decode(file[: file.index(pixels)], LARGEST)
