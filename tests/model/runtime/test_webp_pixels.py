"""libwebp's own pixels are those that Pillow reads, and where it cannot be called Pillow reads them."""

from __future__ import annotations

import io
import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from model.runtime import webp_pixels as module
from model.runtime.decode import LARGEST, BrokenImageError, decode
from model.runtime.webp_pixels import webp_pixels
from tests.model.exif_blocks import Entry, exif
from tests.service.conftest import encode, scene


def by_pillow(file: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGBA"))


def scenes(mode: str, width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * height).integers(0, 256, (7, 9, len(mode)), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height))


@given(
    mode=st.sampled_from(["RGB", "RGBA"]),
    width=st.integers(1, 70),
    height=st.integers(1, 70),
    lossless=st.booleans(),
    exact=st.booleans(),
    quality=st.integers(0, 100),
    is_extended=st.booleans(),
)
def test_the_pixels_are_those_that_pillow_reads(
    mode: str, width: int, height: int, lossless: bool, exact: bool, quality: int, is_extended: bool
) -> None:
    metadata = {"exif": exif(Entry(1))} if is_extended else {}
    file = encode(
        scenes(mode, width, height), "WEBP", lossless=lossless, exact=exact, quality=quality, method=0, **metadata
    )
    for data in (file, bytearray(file)):
        found = webp_pixels(data, (height, width), mode == "RGBA")
        assert found is not None
        np.testing.assert_array_equal(found, by_pillow(file))


@given(data=st.data())
def test_a_damaged_file_is_decoded_or_broken_as_pillow_says(data: st.DataObject) -> None:
    file = bytearray(encode(scenes("RGBA", 40, 30), "WEBP", lossless=data.draw(st.booleans()), method=0))
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(30, len(file) - 1))] = data.draw(st.integers(0, 255))
    file = file[: data.draw(st.integers(40, len(file)))]
    try:
        with Image.open(io.BytesIO(file)) as image:
            mode, expected = image.mode, np.asarray(image.convert("RGBA"))
    except (OSError, SyntaxError, ValueError):
        with suppress(BrokenImageError):  # which it is, but for what libwebp alone is not so strict about
            decode(file, LARGEST)
    else:
        found = webp_pixels(file, expected.shape[:2], mode == "RGBA")
        np.testing.assert_array_equal(found, expected)


def test_a_file_that_denies_its_own_transparency_is_left_to_pillow() -> None:
    file = bytearray(encode(scenes("RGBA", 40, 30), "WEBP", exif=exif(Entry(1)), method=0))
    assert file[20] & 0x10
    file[20] ^= 0x10
    assert webp_pixels(file, (30, 40), has_alpha=True) is None
    np.testing.assert_array_equal(decode(file, LARGEST), by_pillow(bytes(file))[..., :3])


@pytest.mark.parametrize("frames", [1, 3])
def test_an_animation_is_left_to_pillow(frames: int) -> None:
    first, *others = [scenes("RGB", 20 + n, 20 + n).resize((20, 30)) for n in range(3)]
    file = encode(first, "WEBP", save_all=True, append_images=others, lossless=True, duration=50)
    begins = [match.start() for match in re.finditer(b"ANMF", file)]
    assert len(begins) == 3
    end = [*begins, len(file)][frames]
    file = file[:4] + (end - 8).to_bytes(4, "little") + file[8:end]
    assert webp_pixels(file, (30, 20), has_alpha=False) is None
    np.testing.assert_array_equal(decode(file, LARGEST), np.asarray(first))


def test_a_size_that_is_not_the_file_s_is_no_reason_to_write_beside_the_picture() -> None:
    with pytest.raises(OSError, match="cannot decode"):
        webp_pixels(encode(scenes("RGB", 20, 30), "WEBP"), (30, 19), has_alpha=False)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_where_libwebp_cannot_be_called_pillow_reads_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = encode(scenes(mode, 40, 30), "WEBP", exif=exif(Entry(6)))
    found = decode(file, LARGEST)
    monkeypatch.setattr(module, "_decoder", lambda: None)
    assert webp_pixels(file, (30, 40), mode == "RGBA") is None
    np.testing.assert_array_equal(decode(file, LARGEST), found)
    assert found.shape == (40, 30, 3)


def test_libwebp_is_called_here() -> None:
    """Where it is not, everything above would hold by Pillow alone."""
    assert webp_pixels(encode(scene(), "WEBP"), (scene().height, scene().width), has_alpha=False) is not None
