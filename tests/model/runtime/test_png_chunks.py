"""What is left of a PNG without its metadata is the same picture, whatever the metadata are like."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from model.runtime.png_chunks import SplitPng, split_png
from tests.model.exif_blocks import Entry, chunk, exif, png_with

SIX, THREE = exif(Entry(6)), exif(Entry(3))


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
PNG = saved(PICTURE)
HEADER, PIXELS, END = PNG[8:33], PNG[33:-12], PNG[-12:]
METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"pHYs", b"tIME", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"prVt")


def split(data: bytes | bytearray, max_chunks: int = 1000, max_tables: int = 1000) -> SplitPng:
    return split_png(data, max_chunks, max_tables)


def test_a_file_without_metadata_is_not_even_copied() -> None:
    assert split(PNG).picture is PNG


@given(
    st.lists(st.tuples(st.sampled_from(METADATA), st.binary(max_size=40), st.booleans()), min_size=1),
    st.lists(st.tuples(st.sampled_from(METADATA), st.binary(max_size=40), st.booleans())),
    st.binary(max_size=20),
)
def test_without_its_metadata_a_file_is_what_it_was_before_it_had_any(
    before: list[tuple[bytes, bytes, bool]], behind: list[tuple[bytes, bytes, bool]], rest: bytes
) -> None:
    chunks = [[chunk(kind, data, is_sound=sound) for kind, data, sound in some] for some in (before, behind)]
    file = png_with(png_with(PNG, *chunks[0]), *chunks[1], behind_pixels=True)
    assert split(bytearray(file + rest)).picture == PNG + rest


def test_what_makes_the_picture_stays() -> None:
    palette = PICTURE.quantize(16)
    kept = split(saved(palette, transparency=bytes(range(0, 160, 10)), dpi=(72, 72))).picture
    assert kept == saved(palette, transparency=bytes(range(0, 160, 10)))
    assert b"PLTE" in kept
    assert b"tRNS" in kept


def test_of_an_animation_the_frames_are_left_out() -> None:
    frames = [PICTURE.rotate(90), PICTURE.rotate(180)]
    assert split(saved(PICTURE, save_all=True, append_images=frames)).picture == PNG


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS"])
def test_a_chunk_of_the_picture_must_have_the_right_checksum(kind: bytes) -> None:
    file = saved(PICTURE.quantize(16), transparency=3)
    split(file)
    start = file.index(kind)
    damaged = start + 4 + int.from_bytes(file[start - 4 : start])
    with pytest.raises(ValueError, match=kind.decode()):
        split(file[:damaged] + bytes([file[damaged] ^ 1]) + file[damaged + 1 :])


@pytest.mark.parametrize("between", [b"tEXt", b"eXIf", b"abCd"])
def test_nothing_may_interrupt_the_pixels(between: bytes) -> None:
    pixels = PIXELS[8:-4]
    halves = chunk(b"IDAT", pixels[:100]), chunk(b"IDAT", pixels[100:])
    assert split(PNG[:8] + HEADER + b"".join(halves) + END)
    with pytest.raises(ValueError, match="interrupted"):
        split(PNG[:8] + HEADER + chunk(between, b"").join(halves) + END)


EXIFS = {
    "one": ([(SIX, True)], SIX),
    "two": ([(SIX, True), (THREE, True)], SIX),
    "of a wrong checksum": ([(SIX, False)], b""),
    "behind one of a wrong checksum": ([(THREE, False), (SIX, True)], SIX),
    "behind an empty one": ([(b"", True), (SIX, True)], b""),
}


@pytest.mark.parametrize("name", EXIFS)
def test_of_exif_chunks_the_first_sound_one_counts(name: str) -> None:
    chunks, expected = EXIFS[name]
    assert split(png_with(PNG, *(chunk(b"eXIf", data, is_sound=ok) for data, ok in chunks))).exif == expected


def test_exif_behind_the_pixels_does_not_count() -> None:
    assert split(png_with(PNG, chunk(b"eXIf", SIX), behind_pixels=True)).exif == b""


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 26\n" + SIX.hex().encode())),
        chunk(b"tEXt", b"exif\0Exif\0\0" + SIX),
    ],
)
def test_a_text_is_no_exif(text: bytes) -> None:
    assert split(png_with(PNG, text)).exif == b""


@pytest.mark.parametrize("cut", [0, 7, 8, 19])
def test_what_is_no_chunk_stays_for_the_decoder_to_judge(cut: int) -> None:
    assert split(PNG[:cut]).picture == PNG[:cut]
    assert split(PNG[:-12] + bytes(40)).picture == PNG[:-12] + bytes(40)


@pytest.mark.parametrize("cut", [20, 32, 50, len(PNG) - 13])
def test_a_chunk_of_the_picture_must_be_whole(cut: int) -> None:
    with pytest.raises(ValueError, match="damaged"):
        split(PNG[:cut])


def test_metadata_that_are_cut_short_are_left_out() -> None:
    assert split(PNG[:-12] + chunk(b"tEXt", bytes(100))[:50]).picture == PNG[:-12]


def test_a_text_is_not_unpacked() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("key", "x" * (2 * 2**20), zip=True)
    assert split(saved(PICTURE, pnginfo=info)).picture == PNG


@pytest.mark.parametrize("kind", [b"tEXt", b"IDAT"])
def test_chunks_are_counted_to_one_beyond_the_bound(kind: bytes) -> None:
    file = PNG[:33] + 50 * chunk(kind, b"") + PNG[33:]
    assert split(file).chunks == 53
    assert split(file, 53).chunks == 53
    assert split(file, 20).chunks == 21


def test_tables_are_counted_to_one_beyond_their_bound() -> None:
    def with_chunks(kind: bytes) -> bytes:
        return PNG[:33] + 50 * chunk(kind, b"") + PNG[33:]

    assert split(PNG).tables == split(with_chunks(b"tEXt")).tables == split(with_chunks(b"IDAT")).tables == 2
    for kind in (b"PLTE", b"tRNS", b"ABCD"):
        assert split(with_chunks(kind)).tables == 52
        assert split(with_chunks(kind), max_tables=20).tables == 21


@pytest.mark.parametrize("bounds", [{"max_chunks": 20}, {"max_tables": 20}])
def test_what_has_too_many_chunks_is_not_copied(bounds: dict[str, int]) -> None:
    file = PNG[:33] + chunk(b"tEXt", b"") + 50 * chunk(b"PLTE", b"") + PNG[33:]
    assert split(file, **bounds).picture is file
