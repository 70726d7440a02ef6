"""JSON from strangers that holds one long text: a picture in base64.

Python's parser makes objects of up to sixty times the bytes that they are written in, and lets no other thread run
meanwhile. So the long text is taken out before it reads the rest, and the rest is bounded.
"""

from __future__ import annotations

import binascii
import json
from dataclasses import dataclass
from typing import Any, NoReturn

from service.errors import InferRequestError

MAX_REST = 64 * 2**10  # bytes, the long text aside
LONG = 8 * 2**10  # bytes of a text that is taken out
# What the parser reads instead. Whoever writes this himself gets the text that he has sent.
_PLACE = "\x00"
_QUOTE, _BACKSLASH = b'"', 0x5C


@dataclass(frozen=True)
class JsonText:
    """A JSON text that has been read."""

    value: Any
    _long: memoryview | bytes | None

    def base64(self, text: str) -> bytes:
        """The bytes that one of its texts says in base64, in which every character counts.

        Raises:
            InferRequestError: it is no base64.
        """
        raw = self._long if text == _PLACE and self._long is not None else text
        try:
            return binascii.a2b_base64(raw, strict_mode=True)
        except ValueError:  # binascii's own error, and what it says of a text that is not ASCII
            raise InferRequestError("the data of `image` has to be a picture's file in base64") from None


def read_json_text(body: bytes | bytearray | memoryview) -> JsonText:
    """Read a JSON text of which at most one string is long.

    Raises:
        InferRequestError: it is no JSON, says something twice, or is too large.
    """
    rest, long = _without_long_text(bytes(body))
    try:
        value = json.loads(rest, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError):  # JSONDecodeError is a ValueError, as are wrong UTF-8 and endless numbers
        raise InferRequestError("the request is not valid JSON") from None
    return JsonText(value, long)


def _without_long_text(body: bytes) -> tuple[bytes, memoryview | bytes | None]:
    rest, long = bytearray(), None
    position = 0
    while (begin := body.find(_QUOTE, position) + 1) > 0:
        end = _end_of_text(body, begin)
        rest += body[position:begin]
        if end - begin <= LONG:
            rest += body[begin:end]
        elif long is not None:
            raise InferRequestError("the request holds two long texts; it takes one image, in `data` of one input")
        else:
            rest += json.dumps(_PLACE)[1:-1].encode()
            long = _unescaped(body, begin, end)
        _check(rest)
        rest += _QUOTE
        position = end + 1
    rest += body[position:]
    _check(rest)
    return bytes(rest), long


def _end_of_text(body: bytes, begin: int) -> int:
    """Where a string ends that begins there: at the first quote that no backslash escapes."""
    start = begin
    for _ in range(LONG):  # escaped quotes, which no base64 has
        end = body.find(_QUOTE, start)
        if end < 0:
            raise InferRequestError("the request is not valid JSON")
        # Between two quotes, so that all of this looks at each byte once.
        if body[end - 1] != _BACKSLASH or (end - start - len(body[start:end].rstrip(b"\\"))) % 2 == 0:
            return end
        start = end + 1
    raise InferRequestError("the request is not valid JSON")


def _unescaped(body: bytes, begin: int, end: int) -> memoryview | bytes:
    """The long text; a slash may have a backslash before it in JSON, and some encoders write it so."""
    if body.find(b"\\", begin, end) < 0:
        return memoryview(body)[begin:end]
    return body[begin:end].replace(b"\\/", b"/")


def _check(rest: bytearray) -> None:
    if len(rest) > MAX_REST:
        raise InferRequestError(f"the request has more than {MAX_REST} bytes of JSON beside its image")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InferRequestError("a name is repeated in an object of the request")
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
