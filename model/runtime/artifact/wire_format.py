"""Protobuf's wire format: the fields of a message, read with every bound checked, and written.

Enough for ONNX files, and needs no `protobuf` package. A message is a row of fields, each a tag (its number and wire
type) and a value: a number, or bytes, which may be a message again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotAMessageError(ValueError):
    """The bytes are no protobuf message."""


class TruncatedMessageError(ValueError):
    """The bytes end inside a field."""


class Field(NamedTuple):
    """One field of a message; `whole` is all of its bytes, tag and length included."""

    number: int
    value: memoryview | int
    whole: memoryview

    @property
    def message(self) -> memoryview:
        """The value's bytes. Raises NotAMessageError where it is a number."""
        if isinstance(self.value, int):
            raise NotAMessageError("a number stands where a message should")
        return self.value


def fields(data: memoryview) -> Iterator[Field]:
    """Each field of one message, in order. Raises NotAMessageError or TruncatedMessageError."""
    position = 0
    while position < len(data):
        start = position
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise NotAMessageError("a field has number 0")
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield Field(number, value, data[start:position])
            continue
        if wire_type == _BYTES:
            length, position = _varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise NotAMessageError(f"a field has wire type {wire_type}")
        if position + length > len(data):
            raise TruncatedMessageError("the last field is cut short")
        begin, position = position, position + length
        yield Field(number, data[begin:position], data[start:position])


def rewritten(data: memoryview, path: tuple[int, ...], change: Callable[[memoryview], bytes]) -> bytes:
    """A message in which every message at `path`, field numbers from the outside in, is what `change` makes of it."""
    first, *rest = path
    parts: list[bytes | memoryview] = []
    for field in fields(data):
        if field.number == first:
            inner = rewritten(field.message, tuple(rest), change) if rest else change(field.message)
            parts += [bytes_tag(first, len(inner)), inner]
        else:
            parts.append(field.whole)
    return b"".join(parts)


def number_field(number: int, value: int) -> bytes:
    """A field that holds a number, which is at least 0."""
    return _as_varint(number << 3 | _VARINT) + _as_varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field that holds bytes."""
    return bytes_tag(number, len(value)) + value


def bytes_tag(number: int, length: int) -> bytes:
    """What stands before the bytes of a field that holds `length` of them."""
    return _as_varint(number << 3 | _BYTES) + _as_varint(length)


def _as_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """A base-128 number of at most ten bytes, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise TruncatedMessageError("a number is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise NotAMessageError("a number has more than ten bytes")
