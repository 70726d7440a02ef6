"""Formats that are opened where they are asked for: decoded upright, within the same limits, and closed by default."""

from __future__ import annotations

import io
import struct
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from model.runtime.decode import (
    LARGEST,
    BrokenImageError,
    ImageError,
    ImageFormatError,
    ImageTooComplexError,
    ImageTooLargeError,
    decode,
)
from model.runtime.decode_budget import LargeWorkError
from model.runtime.image_formats import OPTIONAL, MissingDecoderError, format_of, in_words, open_formats

pillow_heif = pytest.importorskip("pillow_heif")
FORMATS = open_formats(tuple(OPTIONAL))
LIMITS = replace(LARGEST, formats=FORMATS)
LOSSY = {"AVIF", "HEIF"}
WORDS = sorted(OPTIONAL)


def picture(width: int = 64, height: int = 48) -> Image.Image:
    """Black, with a red corner at the top left."""
    image = Image.new("RGB", (width, height))
    image.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    return image


def encode(image: Image.Image, word: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, OPTIONAL[word], **options)
    return file.getvalue()


@pytest.mark.parametrize("word", WORDS)
def test_a_format_is_open_where_it_is_asked_for_and_nowhere_else(word: str) -> None:
    data = encode(picture(), word)
    assert format_of(data) == OPTIONAL[word]
    decoded = decode(data, LIMITS)
    assert decoded.shape == (48, 64, 3)
    difference = np.abs(decoded.astype(int) - np.asarray(picture(), int))
    assert np.median(difference) <= (4 if OPTIONAL[word] in LOSSY else 0)
    with pytest.raises(ImageFormatError, match=r"JPEG, PNG or WebP$"):
        decode(data, LARGEST)
    with pytest.raises(ImageFormatError, match="JPEG, PNG, WebP or"):
        decode(data, replace(LARGEST, formats=open_formats([other for other in WORDS if other != word][:1])))


@pytest.mark.parametrize("word", ["tiff", "avif", "heic"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_is_turned_upright_once(word: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = io.BytesIO()
    picture().save(jpeg, "JPEG", exif=exif, quality=100, subsampling=0)
    expected = decode(jpeg.getvalue(), LARGEST).astype(int)
    found = decode(turned_heic(exif) if word == "heic" else encode(picture(), word, exif=exif), LIMITS)
    assert found.shape == expected.shape
    assert np.mean(np.abs(found.astype(int) - expected)) < 10


def turned_heic(exif: Image.Exif) -> bytes:
    """As phones write it: with the orientation in its properties as well, by which its decoder turns it."""
    file, heic = io.BytesIO(), pillow_heif.from_pillow(picture())
    heic[0].info["exif"] = exif.tobytes()
    heic.save(file, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("word", ["gif", "tiff", "avif"])
def test_of_several_the_first_is_taken(word: str) -> None:
    data = encode(picture(), word, save_all=True, append_images=[Image.new("RGB", (64, 48), "white")])
    assert decode(data, LIMITS)[-1, -1].max() < 20


@pytest.mark.parametrize("word", WORDS)
def test_pixels_are_bounded_before_they_are_decoded(word: str) -> None:
    data = encode(picture(), word)
    with pytest.raises(ImageTooLargeError):
        decode(data[:-1], replace(LIMITS, max_pixels=64 * 48 - 1))
    with pytest.raises(ImageTooLargeError):
        decode(data[:-1], replace(LIMITS, max_side=63))
    with pytest.raises(LargeWorkError):
        decode(data, replace(LIMITS, work_now=64 * 48 - 1))


def test_a_gif_of_many_parts_is_put_off_before_they_are_read() -> None:
    """Each is work in Python; only a large image was put off, and small ones had all decoding threads for seconds."""
    data = encode(picture(), "gif")
    tables = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # where the first part begins
    with_comments = data[:tables] + 5_000 * b"\x21\xfe\0" + data[tables:]
    assert (decode(with_comments, LIMITS) == decode(data, LIMITS)).all()
    assert (decode(data, replace(LIMITS, parts_now=100)) == decode(data, LIMITS)).all()
    with pytest.raises(LargeWorkError):
        decode(with_comments, replace(LIMITS, parts_now=100))


@pytest.mark.parametrize("word", WORDS)
@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6))
def test_damaged_files_decode_or_are_refused(word: str, cut: float, flips: list[tuple[float, int]]) -> None:
    data = bytearray(encode(picture(40, 30), word))
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    del data[int(cut * len(data)) + 1 :]
    with suppress(ImageError):
        assert decode(data, replace(LIMITS, max_pixels=10**6, max_cpu_seconds=2)).shape[2] == 3


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"])
def test_usual_tiffs_are_open(compression: str) -> None:
    assert (decode(encode(picture(), "tiff", compression=compression), LIMITS) == np.asarray(picture())).all()


@pytest.mark.parametrize("compression", ["jpeg", "zstd", "lzma"])
def test_other_compressions_of_tiffs_are_closed(compression: str) -> None:
    with pytest.raises(ImageTooComplexError, match="TIFF"):
        decode(encode(picture(), "tiff", compression=compression), LIMITS)


def test_strips_that_lie_over_each_other_are_refused() -> None:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[278] = 1  # rows of a strip
    data = encode(picture(), "tiff", tiffinfo=directory, compression="tiff_adobe_deflate", strip_size=1)
    with Image.open(io.BytesIO(data)) as image:
        sizes = image.tag_v2[279]  # type: ignore[attr-defined]
    assert len(sizes) > 1
    decode(data, LIMITS)
    for kind in ("<H", "<I"):
        old = b"".join(struct.pack(kind, size) for size in sizes)
        if old in data:
            data = data.replace(old, b"".join(struct.pack(kind, 60_000) for _ in sizes))
            break
    with pytest.raises((ImageTooComplexError, BrokenImageError)):
        decode(data, LIMITS)


def test_a_gif_of_comments_ends_with_its_time() -> None:
    comment = b"\x21\xfe" + (b"\xff" + b"x" * 255) * 40_000 + b"\x00"
    data = b"GIF89a\x01\x00\x01\x00\x00\x00\x00" + comment
    with pytest.raises(ImageError):
        decode(data, replace(LIMITS, max_cpu_seconds=0.2))


def test_a_missing_package_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingDecoderError, match=r"heic.*\[heic\]"):
        open_formats(["heic"])


def test_formats_are_told_in_words() -> None:
    assert in_words(open_formats([])) == "JPEG, PNG or WebP"
    assert in_words(FORMATS) == "JPEG, PNG, WebP, AVIF, BMP, GIF, HEIC or TIFF"


@pytest.mark.parametrize(
    ("brands", "name"),
    [
        (b"avif\0\0\0\0mif1", "AVIF"),
        (b"mif1\0\0\0\0avif", "AVIF"),
        (b"heic\0\0\0\0mif1", "HEIF"),
        (b"mif1\0\0\0\0heic", "HEIF"),
        (b"isom\0\0\0\0mp42", "ISO media"),
    ],
)
def test_brands_tell_avif_heic_and_films_apart(brands: bytes, name: str) -> None:
    assert format_of((8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands) == name
