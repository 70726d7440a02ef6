"""Reading uploads: bounds of size, memory and time, and the form they come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.errors import BrokenMultipartError, EmptyUploadError, FieldError, UploadMemoryError
from service.images.multipart import image_field
from service.lifecycle.uploads import UploadMemory
from tests.service.conftest import JPEG, Serving, check_error, red_png
from tests.service.fakes import FakeEngine

pytestmark = pytest.mark.anyio

FORM = "multipart/form-data; boundary=x"


async def chunks(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_bound_is_the_last_size_that_is_accepted(serving: Serving, engine: FakeEngine, chunked: bool) -> None:
    png = red_png(1) + b"\x00" * 1000
    async with serving(engine, max_body_bytes=len(png)) as app:

        async def send(body: bytes) -> Any:
            return await app.detect(chunks(body, 50) if chunked else body)

        assert (await send(png)).status_code == 200
        check_error(await send(png + b"\x00"), 413, "upload_too_large")


async def test_an_announced_size_is_refused_before_the_body_is_read(serving: Serving, engine: FakeEngine) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b""
        raise AssertionError("the body was read")

    async with serving(engine) as app:
        headers = JPEG | {"content-length": str(2**40)}
        response = await app.client.post("/detect", content=never(), headers=headers)
    check_error(response, 413, "upload_too_large")


async def test_ten_thousand_tiny_chunks_are_one_image(serving: Serving, engine: FakeEngine) -> None:
    body = red_png(1) + b"\x00" * 10_000  # what follows a PNG's end does not count
    async with serving(engine) as app:
        assert (await app.detect(chunks(body, 1))).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "application/json",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "images/png",
    ],
)
async def test_other_content_types_are_refused(serving: Serving, engine: FakeEngine, content_type: str) -> None:
    async with serving(engine) as app:
        response = await app.client.post("/detect", content=red_png(1), headers={"content-type": content_type})
    check_error(response, 415, "media_type_not_accepted")


async def test_a_compressed_body_is_refused(serving: Serving, engine: FakeEngine) -> None:
    async with serving(engine) as app:
        headers = JPEG | {"content-encoding": "gzip"}
        check_error(await app.client.post("/detect", content=b"x", headers=headers), 415, "media_type_not_accepted")


async def test_uploads_share_a_bounded_memory(serving: Serving, engine: FakeEngine) -> None:
    png = red_png(1)
    async with serving(engine, max_body_bytes=1024, max_buffered_bytes=1024) as app:
        app.service.upload_memory.take(1025 - len(png))
        check_error(await app.detect(png), 503, "uploads_full")
        app.service.upload_memory.give_back(500)  # for the picture and for its answer
        assert (await app.detect(png)).status_code == 200


def test_memory_is_given_back_however_the_upload_ends() -> None:
    memory = UploadMemory(10)
    with memory.upload("") as upload:
        upload.append(b"123456")
        assert memory.used_bytes == 6
        upload.release()
        assert memory.used_bytes == 0
    with memory.upload("") as upload:
        upload.append(b"123456")
        with pytest.raises(UploadMemoryError):
            upload.append(b"123456")
        assert memory.used_bytes == 6
    assert memory.used_bytes == 0


def form(*parts: tuple[str, bytes]) -> bytes:
    """A form of parts, each a header line and its content."""
    lines = b"".join(b"--x\r\n" + header.encode() + b"\r\n\r\n" + content + b"\r\n" for header, content in parts)
    return lines + b"--x--\r\n"


def field(name: str, rest: str = '; filename="a.jpg"') -> str:
    return f'Content-Disposition: form-data; name="{name}"{rest}'


def test_the_field_image_is_found() -> None:
    content = bytes(range(256)) * 300 + b"\r\n--y\r\n\r\n--"
    assert image_field(form((field("image"), content)), FORM) == content
    assert image_field(form((field("image", ""), content)), FORM) == content
    assert image_field(form((field("image").lower(), content)), 'multipart/form-data; boundary="x"') == content


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x00b", "nul", "x" * 3000])
def test_the_file_name_does_not_matter(name: str) -> None:
    assert image_field(form((field("image", f'; filename="{name}"'), b"1")), FORM) == b"1"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(field("picture"), b"1")],
        [(field("Image"), b"1")],
        [("Content-Type: image/jpeg", b"1")],
        [(field("image"), b"1"), (field("image"), b"2")],
        [(field("image"), b"1"), (field("threshold", ""), b"0.5")],
        [(field(f"field{number}"), b"1") for number in range(1001)],
    ],
    ids=["none", "misnamed", "capital", "unnamed", "repeated", "accompanied", "thousand"],
)
def test_any_other_field_is_refused(parts: list[tuple[str, bytes]]) -> None:
    with pytest.raises(FieldError, match="image"):
        image_field(form(*parts), FORM)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form((field("image"), b"1"))[:-6], FORM),
        (form((field("image"), b"1")), "multipart/form-data"),
        (form((field("image"), b"1")), "multipart/form-data; boundary="),
        (form((field("image"), b"1")), "multipart/form-data; boundary=" + "x" * 300),
        (form((field("image"), b"1")), "multipart/form-data; boundary=other"),
        (b"", FORM),
        (b"\r\n" * 100, FORM),
        (b"--x\r\n" + b"A: b\r\n" * 100 + b"\r\n1\r\n--x--\r\n", FORM),
        (b"--x\r\nA: " + b"b" * 10_000 + b"\r\n\r\n1\r\n--x--\r\n", FORM),
        (b"--x\r\n\xff\xfe: b\r\n\r\n1\r\n--x--\r\n", FORM),
    ],
    ids=[
        "cut", "no boundary", "empty boundary", "long boundary", "other boundary",
        "nothing", "newlines", "many headers", "long header", "bad header",
    ],
)  # fmt: skip
def test_what_is_not_a_form_is_called_broken(body: bytes, content_type: str) -> None:
    with pytest.raises(BrokenMultipartError):
        image_field(body, content_type)


def test_an_empty_field_is_called_empty() -> None:
    with pytest.raises(EmptyUploadError):
        image_field(form((field("image"), b"")), FORM)


BOUNDARY = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='";,'), min_size=1, max_size=70
)
PIECES = st.sampled_from(
    [b"--x", b"--x--", b"\r\n", b"\n", b"--", b"Content-Disposition: form-data; name=", b"image", b'"image"', b";",
     b"=", b"filename*=utf-8''%00", b":", b"\x00", b"\xff", b"Content-Transfer-Encoding: base64"]
)  # fmt: skip
BODIES = st.binary(max_size=300) | st.lists(PIECES | st.binary(max_size=4), max_size=40).map(b"".join)
# As a header is read: each byte is a character.
LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=60)
TYPES = st.just(FORM) | LATIN_1.map(lambda rest: "multipart/form-data; boundary=" + rest) | LATIN_1


@settings(max_examples=1000)
@given(BODIES, TYPES)
def test_any_body_under_any_type_is_a_field_or_one_of_our_errors(body: bytes, content_type: str) -> None:
    with suppress(BrokenMultipartError, FieldError, EmptyUploadError):
        assert image_field(body, content_type)


@given(st.binary(min_size=1), BOUNDARY)
def test_whatever_is_in_the_field_comes_out_of_it(content: bytes, boundary: str) -> None:
    assume(f"--{boundary}".encode() not in content)
    mark = b"--" + boundary.encode()
    head = b'Content-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = mark + b"\r\n" + head + content + b"\r\n" + mark + b"--\r\n"
    assert image_field(body, f'multipart/form-data; boundary="{boundary}"') == content
