"""The form that an upload comes in: what is read of it, and what is refused."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.errors import BrokenMultipartError, EmptyUploadError, FieldError
from service.images.multipart import image_field

FORM = "multipart/form-data; boundary=x"


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


@pytest.mark.parametrize("padding", [b" ", b"\t "])
def test_padding_behind_a_boundary_is_as_short_as_headers(padding: bytes) -> None:
    """To pass 16 MiB of it is one call, during which nobody else has Python's lock."""
    body = form((field("image"), b"1"))
    short, long = (body.replace(b"x\r\n", b"x" + padding * count + b"\r\n", 1) for count in (1000, 2**20))
    assert image_field(short, FORM) == b"1"
    with pytest.raises(BrokenMultipartError):
        image_field(long, FORM)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [(field("picture"), b"1")],
        [(field("Image"), b"1")],
        [("Content-Type: image/jpeg", b"1")],
        [(field("image"), b"1"), (field("threshold", ""), b"0.5")],
        [(field("image"), b"1"), (field("image"), b"2"), (field("threshold", ""), b"0.5")],
        [(field(f"field{number}"), b"1") for number in range(1001)],
    ],
    ids=["none", "misnamed", "capital", "unnamed", "accompanied", "late", "thousand"],
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


GOOD = form((field("image"), b"1"))
AS_THE_STANDARD_ALLOWS = {
    "a preamble": b"This is a multi-part message.\r\n" + GOOD,
    "a preamble of empty lines": b"\r\n\r\n" + GOOD,
    "a preamble with a boundary in a line": b"not --x\r\n" + GOOD,
    "an epilogue": GOOD + b"\r\n--x\r\nwhatever",
    "padding after the first boundary": GOOD.replace(b"--x\r\n", b"--x \t \r\n"),
    "padding after the last boundary": GOOD.replace(b"--x--\r\n", b"--x--  \r\n"),
    "no newline at the end": GOOD.removesuffix(b"\r\n"),
    "a folded header": GOOD.replace(b"form-data; ", b"form-data;\r\n "),
    "a header folded twice": GOOD.replace(b"form-data; ", b"\r\n\t form-data;\r\n \t"),
    "a folded header after it": GOOD.replace(b"\r\n\r\n", b"\r\nX: a\r\n b\r\n\r\n"),
    "no space after the colon": GOOD.replace(b"Disposition: ", b"Disposition:"),
}


@pytest.mark.parametrize("body", AS_THE_STANDARD_ALLOWS.values(), ids=AS_THE_STANDARD_ALLOWS.keys())
def test_what_the_standard_allows_around_a_field_is_read(body: bytes) -> None:
    assert image_field(body, FORM) == b"1"


NOT_AS_IT_SAYS = {
    "more after the first boundary": GOOD.replace(b"--x\r\n", b"--xy\r\n"),
    "a word in the padding": GOOD.replace(b"--x\r\n", b"--x a\r\n"),
    "half a newline in the padding": GOOD.replace(b"--x\r\n", b"--x \r"),
    "a boundary that goes on within the field": GOOD.replace(b"1\r\n", b"1\r\n--xy\r\n"),
    "a fold before the first header": GOOD.replace(b"--x\r\n", b"--x\r\n a\r\n"),
    "a line without a colon": GOOD.replace(b"\r\n\r\n", b"\r\nno header\r\n\r\n"),
    "a space before the colon": GOOD.replace(b"Disposition:", b"Disposition :"),
    "a carriage return in a header": GOOD.replace(b"a.jpg", b"a\r.jpg"),
    "newlines without carriage returns": GOOD.replace(b"\r\n", b"\n"),
    "nine headers": GOOD.replace(b"\r\n\r\n", b"\r\n" + b"A: b\r\n" * 8 + b"\r\n"),
}


@pytest.mark.parametrize("body", NOT_AS_IT_SAYS.values(), ids=NOT_AS_IT_SAYS.keys())
def test_what_it_does_not_allow_is_called_broken(body: bytes) -> None:
    with pytest.raises(BrokenMultipartError):
        image_field(body, FORM)


def test_a_field_may_share_its_last_newline_with_its_headers() -> None:
    with pytest.raises(EmptyUploadError):
        image_field(GOOD.replace(b"1\r\n", b""), FORM)


@pytest.mark.parametrize(
    "body",
    [b"\r\n--" * 2_000_000, b"--x\r\n" * 2_000_000, b"--x\r\n\r\n" + b"\r\n--" * 2_000_000, b"--x" + b" " * 8_000_000,
     b"--x\r\nA: b" + b"\r\n " * 2_000_000],
    ids=["beginnings", "boundaries", "beginnings within", "padding", "folds"],
)  # fmt: skip
def test_much_of_what_could_become_a_form_takes_no_more_memory(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(BrokenMultipartError):
        image_field(body, FORM)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


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


LINES = st.lists(st.binary(max_size=9).map(lambda line: b"a" + line.replace(b"\r\n", b"")), max_size=3)
PADDING = st.text(" \t", max_size=3).map(str.encode)
SPACE = st.sampled_from([b" ", b"", b"\t", b"\r\n ", b"\r\n\t "])


@given(st.binary(min_size=1), BOUNDARY, LINES, PADDING, PADDING, SPACE, SPACE)
def test_whatever_is_in_the_field_comes_out_of_it(
    content: bytes, boundary: str, preamble: list[bytes], first: bytes, last: bytes, colon: bytes, semicolon: bytes
) -> None:
    mark = b"--" + boundary.encode()
    assume(mark not in content)
    head = b"Content-Disposition:" + colon + b"form-data;" + semicolon + b'name="image"; filename="a"\r\n\r\n'
    lines = [*preamble, mark + first, head + content, mark + b"--" + last, *preamble]
    assert image_field(b"\r\n".join(lines), f'multipart/form-data; boundary="{boundary}"') == content
