"""JSON from strangers that holds long texts: pictures in base64.

Python's parser makes objects of up to sixty times the bytes that they are written in, and lets no other thread run
meanwhile. So the long texts are taken out before it reads the rest, and the rest is bounded.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from model.runtime.python_lock import LockTurns
from service.errors import BrokenJsonError

MAX_REST = 64 * 2**10  # bytes, the long texts aside
LONG = 8 * 2**10  # bytes of a text that is taken out
MAX_TEXT = 256 * 2**10  # bytes of a text that is no picture: a labelling configuration has 60 for each label
# What the parser reads instead, with a number behind it. Whoever writes this himself gets one of his own texts.
_PLACE = "\x00"
_QUOTE, _BACKSLASH = b'"', 0x5C
# What stands before base64 in a data: URL (RFC 2397), of which nothing counts but that it is base64.
_DATA_URL = re.compile(rb"data:[^,;]{0,100}(?:;[^,;]{1,100}){0,4};base64,", re.IGNORECASE)
_PIECE = 2**16  # characters, which take up to a millisecond to decode


@dataclass(frozen=True)
class JsonText:
    """A JSON text that has been read."""

    value: Any
    _long: Sequence[memoryview]

    def base64(self, text: str, where: str) -> bytes:
        """The bytes that one of its texts says in base64, of which every character counts but line breaks; before it
        may stand what makes it a data: URL.

        Raises:
            BrokenJsonError: it is no base64; the message says where.
        """
        long = self._long_text(text)
        raw = memoryview(text.encode()) if long is None else long
        begins = _DATA_URL.match(raw)
        raw = raw if begins is None else raw[begins.end() :]
        try:
            return b"".join(_decoded([_without_line_breaks(raw)] if long is None else _unescaped(raw)))
        except ValueError:
            raise BrokenJsonError(f"{where} has to be a picture's file in base64") from None

    def text(self, text: str) -> str:
        """One of its texts as a whole. Raises BrokenJsonError if it is too long, or a long one that is none of JSON."""
        long = self._long_text(text)
        if long is None:
            return text
        if len(long) > MAX_TEXT:
            raise BrokenJsonError(f"the request has a text of more than {MAX_TEXT} bytes that is no picture")
        try:
            whole: str = json.loads(b'"' + bytes(long) + b'"')
        except ValueError:
            raise _no_json() from None
        return whole

    def begins(self, text: str, with_this: str) -> bool:
        """Whether one of its texts begins so, whatever comes then."""
        long = self._long_text(text)
        return text.startswith(with_this) if long is None else bytes(long[: len(with_this)]) == with_this.encode()

    def _long_text(self, text: str) -> memoryview | None:
        """As it is written, if it was taken out."""
        number = text.removeprefix(_PLACE)
        is_long = number != text and number.isdecimal() and len(number) < 6 and int(number) < len(self._long)
        return self._long[int(number)] if is_long else None


def read_json_text(body: bytes | bytearray | memoryview, most_long: int, max_rest: int = MAX_REST) -> JsonText:
    """Read a JSON text of which so many strings may be long, and so many bytes be beside them.

    What it returns holds the body.

    Raises:
        BrokenJsonError: it is no JSON, says something twice, or is too large.
    """
    rest, long = _without_long_texts(bytes(body) if isinstance(body, memoryview) else body, most_long, max_rest)
    try:
        value = json.loads(rest, object_pairs_hook=_object, parse_constant=_no_number)
    except (ValueError, RecursionError):  # JSONDecodeError is a ValueError, as are wrong UTF-8 and endless numbers
        raise _no_json() from None
    return JsonText(value, long)


def _without_long_texts(body: bytes | bytearray, most_long: int, max_rest: int) -> tuple[bytes, list[memoryview]]:
    rest, view = bytearray(), memoryview(body)
    long: list[memoryview] = []
    position = 0
    turns = LockTurns()
    while (begin := body.find(_QUOTE, position) + 1) > 0:
        turns.give_way()
        end = _end_of_text(body, begin)
        rest += view[position:begin]
        if end - begin <= LONG:
            rest += view[begin:end]
        elif len(long) >= most_long:
            many = "two long texts" if most_long == 1 else f"more than {most_long} long texts"
            raise BrokenJsonError(f"the request holds {many}, of which each would be an image")
        else:
            rest += json.dumps(f"{_PLACE}{len(long)}")[1:-1].encode()
            long.append(view[begin:end])
        _check(rest, max_rest)
        rest += _QUOTE
        position = end + 1
    if len(body) - position > max_rest:
        _check(memoryview(body)[position:], max_rest)
    rest += view[position:]
    _check(rest, max_rest)
    return bytes(rest), long


def _end_of_text(body: bytes | bytearray, begin: int) -> int:
    """Where a string ends that begins there: at the first quote that no backslash escapes."""
    start = begin
    for _ in range(LONG):  # escaped quotes, which no base64 has
        end = body.find(_QUOTE, start)
        if end < 0:
            raise _no_json()
        # Between two quotes, so that all of this looks at each byte once.
        if body[end - 1] != _BACKSLASH or _backslashes(body, start, end) % 2 == 0:
            return end
        start = end + 1
    raise _no_json()


def _backslashes(body: bytes | bytearray, start: int, end: int) -> int:
    """How many stand before a place, from another one on."""
    turns = LockTurns()
    place = end
    while place > start:
        turns.give_way()
        piece = body[max(start, place - _PIECE) : place]
        others = len(piece.rstrip(b"\\"))
        place -= len(piece) - others
        if others:
            break
    return end - place


def _without_line_breaks(text: memoryview) -> bytes:
    return bytes(text).replace(b"\n", b"").replace(b"\r", b"")


def _unescaped(text: memoryview) -> Iterator[bytes]:
    """Pieces of a text in base64, where some encoders write slashes with a backslash, and JSON line breaks.

    Raises ValueError where a backslash means something else.
    """
    turns = LockTurns()
    begin = 0
    while begin < len(text):
        turns.give_way()
        end = min(begin + _PIECE, len(text))
        end += end < len(text) and text[end - 1] == _BACKSLASH
        piece, begin = bytes(text[begin:end]), end
        if b"\\" in piece:
            if b"\\\\" in piece:
                raise ValueError("a backslash is not base64")
            piece = piece.replace(b"\\/", b"/").replace(b"\\n", b"").replace(b"\\r", b"")
        yield piece


def _decoded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes that pieces of base64 say together. Raises ValueError if they say none: padding is at the end only."""
    rest, has_ended = b"", False
    for piece in pieces:
        piece = rest + piece
        whole, rest = piece[: len(piece) // 4 * 4], piece[len(piece) // 4 * 4 :]
        if (has_ended and piece) or whole.endswith(b"==="):  # the decoder takes more padding than there may be
            raise ValueError("padding is not at the end")
        has_ended = has_ended or whole.endswith(b"=")
        yield binascii.a2b_base64(whole, strict_mode=True)
    if rest:
        raise ValueError("the end is missing")


def _check(rest: bytearray | memoryview, max_rest: int) -> None:
    if len(rest) > max_rest:
        raise BrokenJsonError(f"the request has more than {max_rest} bytes of JSON beside its images")


def _no_json() -> BrokenJsonError:
    return BrokenJsonError("the request is not valid JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise BrokenJsonError("a name is repeated in an object of the request")
    return found


def _no_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")
