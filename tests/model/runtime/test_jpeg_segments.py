"""What is left of a JPEG without its metadata is the same picture, whatever the metadata are like."""

from __future__ import annotations

import io
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model.runtime import jpeg_segments
from model.runtime.jpeg_segments import SplitJpeg, split_jpeg
from model.runtime.orientation import turn_of
from tests.model.exif_blocks import Entry, exif, jpeg_with, segment

SIX, WIDTH = exif(Entry(6)), Entry(40, tag=0x0100)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def split(data: bytes | bytearray, max_segments: int = 100, max_tables: int = 100, max_scans: int = 100) -> SplitJpeg:
    return split_jpeg(data, max_segments, max_tables, max_scans)


def pixels(jpeg: bytes | bytearray) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg)) as image:
        return np.asarray(image)


NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
PICTURES = {
    "gray": Image.fromarray(NOISE[..., 0]),
    "colours": Image.fromarray(NOISE[..., :3]),
    "inks": Image.fromarray(NOISE, "CMYK"),
}
JPEG = saved(PICTURES["colours"])
METADATA = (*range(0xE0, 0xF0), 0xFE)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", PICTURES)
def test_without_its_metadata_a_picture_has_the_same_pixels(name: str, progressive: bool) -> None:
    options = {"exif": b"Exif\0\0" + SIX, "icc_profile": bytes(2_000), "comment": b"hello"}
    file = saved(PICTURES[name], progressive=progressive, **options)
    left = split(file)
    assert (pixels(left.picture) == pixels(file)).all()
    assert len(left.picture) < len(file) - 2_000
    assert left.exif == SIX


def test_a_picture_without_metadata_is_not_copied() -> None:
    assert split(JPEG).picture is JPEG


@pytest.mark.parametrize("progressive", [False, True])
@given(
    st.lists(st.tuples(st.sampled_from(METADATA), st.binary(max_size=40)), max_size=8),
    st.integers(0, 20),
    st.binary(max_size=20),
)
def test_without_its_metadata_a_file_is_what_it_was_before_it_had_any(
    progressive: bool, before: list[tuple[int, bytes]], filling: int, rest: bytes
) -> None:
    file = saved(PICTURES["colours"], progressive=progressive)
    segments = (bytes(filling * [0xFF]) + segment(data, marker) for marker, data in before)
    # JFIF's own segment comes first, or another decides of what kind the colours are.
    jfif, others = file[:20], file[20:]
    assert split(bytearray(jfif + b"".join(segments) + others + rest)).picture == file + rest


def test_the_segment_that_says_how_inks_are_stored_stays() -> None:
    assert b"Adobe" in split(saved(PICTURES["inks"])).picture


def test_segments_are_counted_to_one_beyond_the_bound() -> None:
    own = split(JPEG).segments
    file = jpeg_with(JPEG, *(50 * [segment(b"", 0xFE)]))
    assert split(file, 1000).segments == own + 50
    assert split(file, 20).segments == 21


def test_tables_are_counted_to_one_beyond_their_bound() -> None:
    own = split(JPEG).tables
    assert own == sum(JPEG.count(bytes([0xFF, marker])) for marker in (0xE0, 0xDB, 0xC0, 0xC4))
    tables = [segment(b"", marker) for marker in (0xDB, 0xC4, 0xDD, 0xF0, 0x02)]
    assert split(jpeg_with(JPEG, *(10 * tables))).tables == own + 50
    assert split(jpeg_with(JPEG, *(10 * tables)), max_tables=20).tables == 21
    assert split(jpeg_with(JPEG, *(10 * [segment(b"", 0xE1)]))).tables == own


@pytest.mark.parametrize("bounds", [{"max_segments": 20}, {"max_tables": 20}])
def test_what_has_too_many_segments_is_not_copied(bounds: dict[str, int]) -> None:
    file = jpeg_with(JPEG, segment(b"hello", 0xFE), *(50 * [segment(b"", 0xDB)]))
    left = split(file, **bounds)
    assert left.picture is file
    assert (left.scans, left.scan_starts) == (0, [])


def test_scans_are_counted() -> None:
    assert split(JPEG).scans == 1
    assert split(saved(PICTURES["gray"], progressive=True)).scans == 6


@pytest.mark.parametrize("cut", range(2, len(JPEG), 7))
def test_what_is_cut_off_stays_for_the_decoder_to_judge_from_the_first_scan_on(cut: int) -> None:
    left = split(JPEG[:cut]).picture
    assert left == JPEG[:cut] if cut > JPEG.index(b"\xff\xda") + 1 else JPEG.startswith(bytes(left))


@pytest.mark.parametrize(
    "junk",
    [bytes(10**6), b"\xff\0" * 10**6, b"\xff" * 10**6 + b"\0", b"\x80\xff\xff\0" * 10**5],
    ids=["zeros", "escaped", "filled", "mixed"],
)
@pytest.mark.parametrize("place", [2, 20, JPEG.index(b"\xff\xc0"), JPEG.index(b"\xff\xda")])
def test_what_lies_between_segments_is_left_out_as_decoders_do(junk: bytes, place: int) -> None:
    left = split(JPEG[:place] + junk + JPEG[place:], 1000).picture
    assert left == JPEG
    if place > 2 and len(junk) < 10**6:
        assert (pixels(left) == pixels(JPEG[:place] + junk + JPEG[place:])).all()


@pytest.mark.parametrize(
    "wrong", [b"\xff\xe1\0\0", b"\xff\xe1\0\1", b"\xff\xd9", b"\xff\xfe\xff\xff", b"\xff"], ids=bytes.hex
)
def test_nothing_is_read_behind_what_cannot_be_a_segment(wrong: bytes) -> None:
    before_scan = JPEG[: JPEG.index(b"\xff\xda")]
    assert split(before_scan + wrong + bytes(2**15)).picture == before_scan


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0xE0, 0xE1, 0xEE, 0xFE, 0xDB, 0xD0]),
            st.sampled_from([b"", b"JFIF\0\0", b"Adobe\0", b"Exi", b"Exif\0\0", b"Exif\0\0" + SIX])
            | st.binary(max_size=9),
            st.sampled_from([b"", b"", b"", b"\xff", b"\0", b"\xff\xe1\0\1", b"\xff\xfe\xff\xff"]),
        ),
        max_size=12,
    ),
    st.integers(0, 20),
    st.sampled_from([JPEG[2:], b"", b"\xff"]),
)
def test_segments_that_are_passed_in_one_go_count_and_mean_the_same(
    parts: list[tuple[int, bytes, bytes]], bound: int, rest: bytes
) -> None:
    file = b"\xff\xd8" + b"".join(segment(data, marker) + junk for marker, data, junk in parts) + rest
    expected = split(file, bound)
    with patch.object(jpeg_segments, "_skip_known", lambda data, start, known, most: (start, 0)):
        assert split(file, bound) == expected


@given(st.binary(max_size=200))
def test_anything_can_be_taken_apart(data: bytes) -> None:
    split(b"\xff\xd8\xff" + data, 10)


JPEGS = {
    "one": ([b"Exif\0\0" + SIX], 6),
    "two": ([b"Exif\0\0" + SIX, b"Exif\0\0" + exif(Entry(3))], 6),
    "behind XMP": ([b"http://ns.adobe.com/xap/1.0/\0<x/>", b"Exif\0\0" + SIX], 6),
    "behind an empty one": ([b"Exif\0\0", b"Exif\0\0" + SIX], 6),
    "behind a broken one": ([b"Exif\0\0garbage", b"Exif\0\0" + SIX], 1),
    "behind one without": ([b"Exif\0\0" + exif(WIDTH), b"Exif\0\0" + SIX], 1),
    "cut in two": ([b"Exif\0\0" + exif(Entry(6), start=40)[:30], b"Exif\0\0" + exif(Entry(6), start=40)[30:]], 1),
    "padded with something": ([b"Exif\0\xff" + SIX], 6),
    "under another name": ([b"EXIF\0\0" + SIX], 1),
    "in XMP": ([b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>'], 1),
}


@pytest.mark.parametrize("name", JPEGS)
def test_of_the_segments_of_a_jpeg_the_first_exif_counts(name: str) -> None:
    segments, orientation = JPEGS[name]
    file = jpeg_with(JPEG, *(segment(data) for data in segments))
    assert turn_of(split(file).exif).orientation == orientation


@given(
    st.lists(st.sampled_from([b"\0", b"\xff", b"\x11", b"\xff\0", segment(b"data", 0xFE)]), max_size=30),
    st.sampled_from([1, 2, 3, 7]),
)
def test_markers_are_found_wherever_they_begin(before: list[bytes], piece: int) -> None:
    file = JPEG[:20] + b"".join(before) + JPEG[20:]
    with patch.object(jpeg_segments, "_PIECE", piece):
        found = split(file)
    assert found == split(file)


@pytest.mark.parametrize("behind", [False, True])
def test_more_places_that_look_like_scans_than_other_data_have_are_counted_as_such(behind: bool) -> None:
    """Else somebody could hide scans among them: each place that is told costs memory and time."""
    place = len(JPEG) if behind else len(JPEG) - 2
    files = [JPEG[:place] + number * b"\xff\xda" + JPEG[place:] for number in (200, 10_200, 5_000_000)]
    few, many, most = (split(file, max_scans=150) for file in files)
    assert few.scans == (1 if behind else 201)
    assert len(few.scan_starts) == 201
    assert many.scans == len(many.scan_starts) == 10_201
    assert 10_150 < most.scans == len(most.scan_starts) < 200_000


@given(st.lists(st.sampled_from([0xFF, 0xDA, 0xD9, 0xDB, 0x00, 0x11]), max_size=40), st.sampled_from([1, 2, 3, 2**20]))
def test_scans_are_found_wherever_they_begin(values: list[int], piece: int) -> None:
    data = b"\xff\xd8\xff\xda" + bytes(values)
    with patch.object(jpeg_segments, "_PIECE", piece):
        found = split(data)
    assert found.picture == data
    assert list(found.scan_starts) == [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    end = data.find(b"\xff\xd9", 2)
    assert found.scans == data.count(b"\xff\xda", 2, end if end >= 0 else len(data))
