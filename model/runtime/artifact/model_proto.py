"""The few fields of an ONNX file that are needed before anything heavier opens it.

An ONNX file is one protobuf message, ModelProto. Reading it with a bounds-checked walk over its top-level
fields takes microseconds, needs no session and no `onnx` package, and cannot be led outside the bytes it was
given. Field numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator

_MODEL_GRAPH = 7
_MODEL_METADATA_PROPS = 14
_ENTRY_KEY = 1
_ENTRY_VALUE = 2
_GRAPH_INITIALIZER = 5
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class NotAMessageError(ValueError):
    """The bytes are no protobuf message."""


class TruncatedMessageError(ValueError):
    """The bytes end inside a field."""


def has_graph(data: bytes) -> bool:
    """Whether a ModelProto holds a graph. Raises NotAMessageError or TruncatedMessageError."""
    # Every field is walked, so that a file cut after its graph does not pass for a whole one.
    return _MODEL_GRAPH in [number for number, _ in _fields(memoryview(data))]


def metadata_props(data: bytes) -> dict[str, str]:
    """The key-value texts of a ModelProto.

    Raises NotAMessageError or TruncatedMessageError if the bytes are not a message, and ValueError
    (UnicodeDecodeError included) if a key comes twice or a text is not UTF-8.
    """
    texts: dict[str, str] = {}
    for number, entry in _fields(memoryview(data)):
        if number == _MODEL_METADATA_PROPS:
            parts = dict(_fields(_message(entry)))
            key, value = (str(_message(parts.get(n, memoryview(b""))), "utf-8") for n in (_ENTRY_KEY, _ENTRY_VALUE))
            if key in texts:
                raise ValueError(f"metadata key {key!r} comes twice")
            texts[key] = value
    return texts


def has_external_data(data: bytes) -> bool:
    """Whether any weight (graph initializer) lies in another file. Raises as `has_graph` does."""
    for number, graph in _fields(memoryview(data)):
        if number == _MODEL_GRAPH:
            for kind, tensor in _fields(_message(graph)):
                if kind == _GRAPH_INITIALIZER and _is_external(_message(tensor)):
                    return True
    return False


def _is_external(tensor: memoryview) -> bool:
    return any(
        number == _TENSOR_EXTERNAL_DATA or (number == _TENSOR_DATA_LOCATION and value == 1)
        for number, value in _fields(tensor)
    )


def _message(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise NotAMessageError("a number stands where a message should")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Each field of one message: its number, and its bytes or its number value."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise NotAMessageError("a field has number 0")
        if wire_type == _VARINT:
            value, position = _varint(data, position)
            yield number, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(data, position)
        elif wire_type in (_FIXED32, _FIXED64):
            length = 4 if wire_type == _FIXED32 else 8
        else:
            raise NotAMessageError(f"a field has wire type {wire_type}")
        if position + length > len(data):
            raise TruncatedMessageError("the last field is cut short")
        yield number, data[position : position + length]
        position += length


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
