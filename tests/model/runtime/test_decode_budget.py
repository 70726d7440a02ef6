"""No image takes more work than one of its size may, whatever it is made of."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from model.runtime.decode import ImageLimits, ImageTooComplexError, decode
from model.runtime.decode_budget import LargeWorkError, MeteredFile
from model.runtime.jpeg_segments import split_jpeg
from tests.model.exif_blocks import chunk, jpeg_with, segment

LIMITS = ImageLimits(max_pixels=1_000_000, max_side=2000)
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


def saved(image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, image_format, **options)
    return buffer.getvalue()


PNG, JPEG, WEBP = (saved(image_format) for image_format in ("PNG", "JPEG", "WEBP"))


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    file = saved("JPEG", progressive=True)
    last = file.rindex(b"\xff\xda")
    return file[:last] + (count - file.count(b"\xff\xda") + 1) * file[last:-2] + b"\xff\xd9"


def webp_with(chunks: bytes) -> bytes:
    body = b"WEBP" + WEBP[12:] + chunks
    return b"RIFF" + len(body).to_bytes(4, "little") + body


@pytest.mark.parametrize(
    "file",
    [
        jpeg_with(JPEG, *(30_000 * [segment(b"", 0xE1)])),
        jpeg_with(JPEG, *(30_000 * [segment(b"Photoshop 3.0\0", 0xED)])),
        PNG[:33] + 30_000 * chunk(b"tEXt", b"a\0b") + PNG[33:],
        PNG[:33] + 30_000 * chunk(b"IDAT", b"") + PNG[33:],
        webp_with(30_000 * b"EXIF\0\0\0\0"),
    ],
    ids=["jpeg_app1", "jpeg_app13", "png_text", "png_pixels", "webp_exif"],
)
def test_an_image_in_many_pieces_is_refused_by_their_number(file: bytes) -> None:
    with pytest.raises(ImageTooComplexError, match="more than 20000 segments or chunks"):
        decode(file, LIMITS)
    assert decode(file, replace(LIMITS, max_parts=31_000)).shape == (40, 60, 3)


@pytest.mark.parametrize(
    "table",
    [segment(bytes([0, *(64 * [1])]), 0xDB), segment(bytes(17), 0xC4), segment(bytes(2), 0xDD), segment(b"", 0xF7)],
    ids=["quantisation", "Huffman", "restarts", "reserved"],
)
def test_a_jpeg_of_many_tables_is_refused_by_their_number(table: bytes) -> None:
    """A hundred kilobytes of them were a tenth of a second with Python's lock: eight such held others up for one."""
    own = split_jpeg(JPEG, 100, 100, 100).tables
    assert decode(jpeg_with(JPEG, *((250 - own) * [segment(bytes(2), 0xDD)])), LIMITS).shape == (40, 60, 3)
    with pytest.raises(ImageTooComplexError, match="more than 250 tables"):
        decode(jpeg_with(JPEG, *((251 - own) * [table])), LIMITS)


@pytest.mark.parametrize("kind", [b"PLTE", b"tRNS", b"TEST"])
def test_a_png_of_many_tables_is_refused_by_their_number(kind: bytes) -> None:
    pixels = (PNG[:33], PNG[33:])
    assert decode((248 * chunk(b"tRNS", bytes(6))).join(pixels), LIMITS).shape == (40, 60, 3)
    with pytest.raises(ImageTooComplexError, match="more than 250 tables"):
        decode((249 * chunk(kind, bytes(6))).join(pixels), LIMITS)


def test_data_behind_a_jpeg_that_look_like_scans_are_refused_by_their_number() -> None:
    """Four million of them took half a second and as many integers, before anything was known of the picture."""
    with pytest.raises(ImageTooComplexError, match="more than 120 scans"):
        decode(JPEG + b"\xff\xda" * 4_000_000, LIMITS)


@pytest.mark.parametrize(
    "file",
    [
        jpeg_with(JPEG, *(100 * [segment(b"", 0xE1)])),
        PNG[:33] + 100 * chunk(b"tEXt", b"a\0b") + PNG[33:],
        PNG[:33] + 100 * chunk(b"IDAT", b"") + PNG[33:],
        webp_with(100 * b"EXIF\0\0\0\0"),
    ],
    ids=["jpeg", "png_text", "png_pixels", "webp"],
)
def test_an_image_of_more_parts_than_are_wanted_now_can_be_decoded_later(file: bytes) -> None:
    assert decode(file, replace(LIMITS, parts_now=120)).shape == (40, 60, 3)
    with pytest.raises(LargeWorkError):
        decode(file, replace(LIMITS, parts_now=99))
    with pytest.raises(ImageTooComplexError, match="more than 98 segments or chunks"):
        decode(file, replace(LIMITS, max_parts=98, parts_now=98))


def test_a_jpeg_of_many_scans_is_refused_by_their_number() -> None:
    assert decode(with_scans(120), LIMITS).shape == (40, 60, 3)
    with pytest.raises(ImageTooComplexError, match="more than 120 scans"):
        decode(with_scans(121), LIMITS)


@pytest.mark.parametrize(
    "file", [PNG, JPEG, saved("JPEG", progressive=True), WEBP], ids=["png", "jpeg", "many", "webp"]
)
@pytest.mark.parametrize(
    "rest", [bytes(500_000), b"\xff\xda" * 1000, b"EXIF\0\0\0\0" * 30_000], ids=["0", "scans", "exif"]
)
def test_what_follows_an_image_counts_for_nothing(file: bytes, rest: bytes) -> None:
    assert (decode(file + rest, LIMITS) == decode(file, LIMITS)).all()


def test_fill_bytes_are_no_work() -> None:
    file = JPEG[:2] + bytes(5_000_000 * [0xFF]) + JPEG[2:]
    assert (decode(file, LIMITS) == decode(JPEG, LIMITS)).all()


@pytest.mark.parametrize("file", [PNG, JPEG, saved("JPEG", progressive=True)], ids=["png", "jpeg", "progressive"])
def test_an_image_that_takes_too_long_is_refused_for_that(file: bytes) -> None:
    with pytest.raises(ImageTooComplexError, match="takes more time to decode than an image of its size may"):
        decode(file, replace(LIMITS, max_cpu_seconds=1e-9))


@pytest.mark.parametrize(("file", "work"), [(PNG, 1), (JPEG, 1), (WEBP, 1), (with_scans(30), 30)])
def test_an_image_of_more_work_than_is_wanted_now_can_be_decoded_later(file: bytes, work: int) -> None:
    pixels = PICTURE.width * PICTURE.height
    assert decode(file, replace(LIMITS, work_now=work * pixels)).shape == (40, 60, 3)
    with pytest.raises(LargeWorkError):
        decode(file, replace(LIMITS, work_now=work * pixels - 1))


def test_a_small_image_has_a_quarter_of_the_largest_ones_time() -> None:
    limits = replace(LIMITS, max_cpu_seconds=4.0)
    assert limits.cpu_seconds(0) == 1.0
    assert limits.cpu_seconds(500_000) == 2.5
    assert limits.cpu_seconds(1_000_000) == 4.0


def test_a_file_ends_when_its_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("model.runtime.decode_budget.time.thread_time", lambda: float(next(seconds)))
    file = MeteredFile(bytes(10_000))
    assert file.read(1000) == bytes(1000)
    file.limit(2.5, in_small_pieces=False)
    assert file.read(1000) == bytes(1000)
    assert not file.is_spent
    assert file.read(1000) == b""
    assert file.is_spent


def test_a_file_that_is_read_in_few_bytes_ends_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count()
    monkeypatch.setattr("model.runtime.decode_budget.time.thread_time", lambda: float(next(seconds)))
    file = MeteredFile(bytes(10_000))
    file.limit(5.5, in_small_pieces=False)
    pieces = list(iter(lambda: file.read(1), b""))
    assert 0 < len(pieces) < 100
    assert file.is_spent


def test_a_reader_of_few_bytes_gives_way_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    def give_way() -> None:
        nonlocal turns
        turns += 1

    monkeypatch.setattr("model.runtime.decode_budget.give_way", give_way)
    file = MeteredFile(bytes(2**20))
    for _ in range(3000):
        file.read(4)
    assert 5 <= turns <= 30
    turns = 0
    while file.read(2**10):
        pass
    assert turns == 0


def test_a_reader_that_takes_few_bytes_too_often_can_come_later() -> None:
    file = MeteredFile(bytes(2**20), most_small_reads=10)
    for _ in range(10):
        assert file.read(4) == bytes(4)
        assert file.read(1000) == bytes(1000)
    with pytest.raises(LargeWorkError):
        file.read(4)


def test_a_reader_gets_one_scan_at_a_time_and_all_of_the_file() -> None:
    data = split_jpeg(with_scans(100), 1000, 1000, 100)
    file = MeteredFile(data.picture, data.scan_starts)
    file.limit(600, in_small_pieces=True)
    pieces = list(iter(lambda: file.read(65_536), b""))
    assert b"".join(pieces) == data.picture
    assert max(piece.count(b"\xff\xda") for piece in pieces) == 1


def test_a_reader_that_takes_long_gets_less_and_one_that_is_quick_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("model.runtime.decode_budget.time.thread_time", lambda: now)
    file = MeteredFile(bytes(2**20))
    file.limit(1000, in_small_pieces=True)
    given = []
    for took in (0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.01, 0.0, 0.0):
        now += took
        given.append(len(file.read(2**17)))
    assert given == [65536, 16384, 4096, 1024, 256, 256, 256, 512, 1024]
    assert len(file.read(100)) == 100, "a header is read whole"
    assert b"".join(iter(lambda: file.read(2**17), b"")) == bytes(2**20 - sum(given) - 100)
