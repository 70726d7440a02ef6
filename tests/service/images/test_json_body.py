"""Images in a JSON body, in base64."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BrokenJsonError, EmptyUploadError, ServiceError, TooManyImagesError
from service.images import json_text
from service.images.json_body import json_image
from service.images.json_text import LONG
from service.images.several_images import SeveralImagesError

PICTURES = st.one_of(st.binary(min_size=1, max_size=50), st.integers(LONG, 3 * LONG).map(lambda size: b"\xfe" * size))


def text(data: bytes, prefix: str = "", *, lines: bool = False) -> str:
    encode = base64.encodebytes if lines else base64.b64encode
    return prefix + encode(data).decode()


@given(
    PICTURES,
    st.sampled_from(["", "data:image/jpeg;base64,", "data:;base64,", "data:image/png;a=b;base64,"]),
    st.booleans(),
)
def test_an_image_is_what_was_encoded(data: bytes, prefix: str, lines: bool) -> None:
    body = json.dumps({"image": text(data, prefix, lines=lines)}).encode()
    assert json_image(body) == json_image(bytearray(body)) == json_image(body.replace(b"/", b"\\/")) == data
    assert json_image(json.dumps({"images": [text(data, prefix)]}).encode()) == data


ESCAPED = {"slash": b"\\/", "line break": b"\\n", "both": b"\\r\\n", "backslash": b"\\\\", "quote": b'\\"', "none": b""}


@given(
    st.lists(st.sampled_from([*ESCAPED.values(), b"/", b"A", b"AAAA", b"=", b"==", b"?", b"nr"]), max_size=30),
    st.sampled_from([1, 2, 3, 5, 8, 4099]),
)
def test_a_long_text_means_the_same_in_any_pieces(parts: list[bytes], piece: int) -> None:
    written = b"".join([(LONG // 4 + 1) * b"AAAA", *parts])
    try:
        said = json.loads(b'"' + written + b'"').replace("\n", "").replace("\r", "")
    except ValueError:
        said = "?"
    is_base64 = re.fullmatch("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", said)
    expected = base64.b64decode(said) if is_base64 else None
    with patch.object(json_text, "_PIECE", piece):
        try:
            found = json_image(b'{"image": "' + written + b'"}')
        except BrokenJsonError:
            found = None
    assert found == expected


@pytest.mark.parametrize("count", [LONG, LONG + 1, 10 * LONG, 2**20 + 1])
def test_a_text_may_end_with_any_number_of_backslashes(count: int) -> None:
    """An even number of them means half as many; of an odd number, the last one means that the text goes on."""
    body = b'{"images": ["' + count * b"\\" + b'"]}'
    with pytest.raises(BrokenJsonError, match="base64" if count % 2 == 0 else "not valid JSON"):
        json_image(body)


@given(st.lists(PICTURES, min_size=2, max_size=5))
def test_several_images_come_in_their_order(pictures: list[bytes]) -> None:
    with pytest.raises(SeveralImagesError) as several:
        json_image(json.dumps({"images": [text(data) for data in pictures]}).encode())
    assert [part() for part in several.value.parts] == pictures


WRONG = {
    "no JSON": b"picture",
    "cut off": b'{"image": "AAAA',
    "twice": b'{"image": "AAAA", "image": "AAAA"}',
    "no object": b'["AAAA"]',
    "no image": b"{}",
    "no images": b'{"images": []}',
    "a number": b'{"image": 1}',
    "a list": b'{"image": ["AAAA"]}',
    "a text": b'{"images": "AAAA"}',
    "null among them": b'{"images": ["AAAA", null]}',
    "both": b'{"image": "AAAA", "images": ["AAAA"]}',
    "a parameter": b'{"image": "AAAA", "threshold": 0.5}',
    "no base64": b'{"image": "AAA?"}',
    "half": b'{"image": "AAA"}',
    "too much padding": b'{"image": "AAAA="}',
    "far too much padding": b'{"image": "AAAA===="}',
    "padding amid": b'{"image": "' + b"AA==" * LONG + b'"}',
    "a data URL without base64": b'{"image": "data:image/png,AAAA"}',
    "an address": b'{"image": "https://example.org/a.jpg"}',
    "nested": b"[" * 60_000,
    "long JSON": b'{"image": [' + b"0," * 60_000 + b"0]}",
    "long without a text": b"0" * 2**20,
    "not UTF-8": b'{"image": "\xff"}',
    "not ASCII": '{"image": "\u00e4\u00e4\u00e4\u00e4"}'.encode(),
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG.keys())
def test_other_json_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(BrokenJsonError) as raised:
        json_image(body)
    assert "\n" not in str(raised.value)


def test_an_empty_image_is_told() -> None:
    with pytest.raises(EmptyUploadError):
        json_image(b'{"image": ""}')


def test_a_thousand_images_are_looked_for_and_no_more() -> None:
    with pytest.raises(SeveralImagesError):
        json_image(json.dumps({"images": ["AAAA"] * 1000}).encode())
    with pytest.raises(TooManyImagesError):
        json_image(json.dumps({"images": ["AAAA"] * 1001}).encode())


@given(st.binary(max_size=200) | st.text(alphabet='{}[]:,"\\imagesA=\x00 0', max_size=60).map(str.encode))
def test_whatever_comes_is_an_image_or_an_error_of_ours(body: bytes) -> None:
    with suppress(ServiceError, SeveralImagesError):
        assert json_image(body)
