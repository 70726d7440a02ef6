"""Decoding: the picture a person sees, from every kind of file, within limits."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from model.runtime.decode import (
    BrokenImageError,
    ImageError,
    ImageFormatError,
    ImageLimits,
    ImageTooLargeError,
    NotAnImageError,
    decode,
    decode_reduced,
    sniff,
)
from tests.model.exif_blocks import BYTE, LONG, SIGNED_LONG, Entry, chunk, exif, jpeg_with, png_with, segment
from tests.service.conftest import LEAK, encode, scene

LIMITS = ImageLimits(max_pixels=50_000_000, max_side=16_384)


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image.convert("RGB")).astype(np.int16)


def decoded(data: bytes) -> NDArray[np.int16]:
    image = decode(data, LIMITS)
    assert image.dtype == np.uint8
    assert image.shape[2] == 3
    return image.astype(np.int16)


def gradient() -> Image.Image:
    """A picture with no symmetry, smooth enough for JPEG."""
    rows, columns = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([rows * 5, columns * 4, 255 - rows * 2 - columns], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_accepted_formats_decode_to_rgb(image_format: str) -> None:
    options = {"quality": 95} if image_format != "PNG" else {}
    found = decoded(encode(gradient(), image_format, **options))
    assert np.abs(found - pixels(gradient())).mean() < 4


# EXIF 2.32, 4.6.4.A: which side of the upright picture the first row and the first column of the file are.
STORED = {
    1: [],
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_90],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_270],
}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_every_exif_orientation_is_shown_upright(orientation: int, image_format: str) -> None:
    stored = gradient()
    for method in STORED[orientation]:
        stored = stored.transpose(method)
    tag = Image.Exif()
    tag[0x0112] = orientation
    options = {"quality": 95} if image_format != "PNG" else {}
    data = encode(stored, image_format, exif=tag, **options)
    found = decoded(data)
    assert found.shape == (48, 64, 3)
    assert np.abs(found - pixels(gradient())).mean() < 4
    assert decode_reduced(data, LIMITS, None).orientation == orientation


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_none(orientation: int) -> None:
    tag = Image.Exif()
    tag[0x0112] = orientation
    assert decoded(encode(gradient(), exif=tag)).shape == (48, 64, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # Pillow's own word for it
@pytest.mark.parametrize(
    "data", [b"Exif\x00\x00", b"Exif\x00\x00garbage", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"no exif"]
)
def test_garbage_for_exif_counts_as_none(data: bytes) -> None:
    assert decoded(encode(gradient(), exif=data)).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", [BYTE, LONG, SIGNED_LONG])
def test_an_orientation_of_a_wrong_type_counts_as_none(kind: int) -> None:
    data = jpeg_with(encode(gradient()), segment(b"Exif\0\0" + exif(Entry(6, kind=kind))))
    assert decoded(data).shape == (48, 64, 3)


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
SIX = exif(Entry(6))
RAW_PROFILE = b"Raw profile type exif\0" + b"\nexif\n      32\n" + (b"Exif\0\0" + SIX).hex().encode()


@pytest.mark.parametrize(
    "data",
    [
        jpeg_with(encode(gradient()), segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
        png_with(encode(gradient(), "PNG"), chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
        png_with(encode(gradient(), "PNG"), chunk(b"tEXt", RAW_PROFILE)),
        png_with(encode(gradient(), "PNG"), chunk(b"tEXt", b"exif\0Exif\0\0" + SIX)),
        encode(gradient(), "WEBP", xmp=XMP),
    ],
    ids=["JPEG", "PNG", "PNG of ImageMagick", "PNG with a text called exif", "WebP"],
)
def test_no_orientation_but_that_of_exif_turns_an_image(data: bytes) -> None:
    assert decoded(data).shape == (48, 64, 3)


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"pHYs", b"eXIf", b"acTL", b"prVt"])
@pytest.mark.parametrize("behind_pixels", [False, True])
def test_a_damaged_chunk_of_metadata_damages_no_png(kind: bytes, behind_pixels: bool) -> None:
    damaged = chunk(kind, b"\0\1\2\3", is_sound=False)
    data = png_with(encode(gradient(), "PNG"), damaged, behind_pixels=behind_pixels)
    np.testing.assert_array_equal(decoded(data), pixels(gradient()))


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND", b"tRNS"])
def test_a_damaged_chunk_of_the_picture_breaks_a_png(kind: bytes) -> None:
    data = png_with(encode(gradient(), "PNG"), chunk(b"tRNS", bytes(6)))
    start = data.index(kind)
    checksum = start + 4 + int.from_bytes(data[start - 4 : start])
    decode(data, LIMITS)
    with pytest.raises(BrokenImageError):
        decode(data[:checksum] + bytes([data[checksum] ^ 1]) + data[checksum + 1 :], LIMITS)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_looks_like_its_rgb_twin(mode: str) -> None:
    twin = gradient() if mode in ("RGB", "RGBA", "P") else gradient().convert("L")
    found = decoded(encode(twin.convert(mode), "PNG"))
    # A palette and two tones are coarse, but the picture as a whole stays as bright.
    assert np.abs(found.mean(axis=(0, 1)) - pixels(twin).mean(axis=(0, 1))).max() < 12


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_mode_of_jpeg_looks_like_its_rgb_twin(mode: str) -> None:
    twin = gradient().convert("L") if mode == "L" else gradient()
    found = decoded(encode(twin.convert(mode), quality=95))
    assert np.abs(found - pixels(twin)).mean() < 4


def test_sixteen_bit_gray_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    found = decoded(encode(Image.fromarray(values), "PNG"))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (found[..., 0] == found[..., 2]).all()


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 128), (0, 0, 0, 0)])
    assert decoded(encode(image, "PNG"))[0].tolist() == [[255, 0, 0], [255, 127, 127], [255, 255, 255]]
    assert decoded(encode(image, "WEBP", lossless=True))[0, 2].tolist() == [255, 255, 255]


def test_a_transparent_palette_entry_lies_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert decoded(encode(image, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_a_transparent_gray_lies_over_white() -> None:
    image = Image.new("L", (2, 1))
    image.putdata([7, 9])
    assert decoded(encode(image, "PNG", transparency=7))[0].tolist() == [[255] * 3, [9] * 3]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "MPO"])
def test_of_an_animation_the_first_frame_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert np.abs(decoded(data) - pixels(frames[0])).max() < 4


@pytest.mark.parametrize(
    ("image_format", "name"),
    [
        ("GIF", "GIF"),
        ("BMP", "BMP"),
        ("TIFF", "TIFF"),
        ("ICO", "ICO"),
        ("JPEG2000", "JPEG 2000"),
        ("AVIF", "AVIF"),
    ],
)
def test_other_image_formats_are_told_apart_from_garbage(image_format: str, name: str) -> None:
    with pytest.raises(ImageFormatError) as raised:
        decode(encode(gradient(), image_format), LIMITS)
    assert raised.value.image_format == name


@pytest.mark.parametrize("data", [b"\x00", b"hello", b"RIFF\x00\x00\x00\x00WAVE", b"\xff\xd8", b"{}", b"PK\x03\x04"])
def test_what_is_no_image_is_called_that(data: bytes) -> None:
    with pytest.raises(NotAnImageError):
        sniff(data)


@pytest.mark.parametrize("limits", [ImageLimits(64 * 48 - 1, 64), ImageLimits(64 * 48, 63)])
def test_a_larger_image_than_allowed_is_refused(limits: ImageLimits) -> None:
    decode(encode(gradient()), ImageLimits(64 * 48, 64))
    with pytest.raises(ImageTooLargeError):
        decode(encode(gradient()), limits)


@pytest.mark.parametrize("side", [10_000, 14_000, 60_000])
def test_a_decompression_bomb_is_refused_before_its_pixels_exist(side: int) -> None:
    # A header is enough: were the pixels decoded, the file would be called broken.
    header = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = side.to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    with pytest.raises(ImageTooLargeError):
        decode(header, LIMITS)


def test_a_huge_text_in_a_png_is_not_unpacked() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("key", "x" * (2 * 2**20), zip=True)
    # Pillow would refuse it, but only after it has unpacked as much as it allows.
    np.testing.assert_array_equal(decoded(encode(gradient(), "PNG", pnginfo=info)), pixels(gradient()))


@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_decode_or_are_refused_without_giving_anything_away(
    kind: str, cut: float, flips: list[tuple[float, int]]
) -> None:
    data = bytearray(encode(scene(40, 30), kind))
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    del data[int(cut * len(data)) + 1 :]
    error, image = attempt(data)
    assert error is None or not LEAK.search(str(error))
    assert image is None or image.shape[2] == 3


def attempt(data: bytearray) -> tuple[ImageError | None, NDArray[np.uint8] | None]:
    try:
        return None, decode(data, LIMITS)
    except ImageError as error:
        return error, None
