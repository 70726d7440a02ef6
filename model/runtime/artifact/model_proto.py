"""The few fields of an ONNX file that are read before anything heavier opens it, or written without the `onnx` package.

An ONNX file is one protobuf message, ModelProto. Reading it with a bounds-checked walk over its top-level
fields takes microseconds, needs no session and no `onnx` package, and cannot be led outside the bytes it was
given. Field numbers are those of onnx/onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from model.runtime.artifact.wire_format import (
    NotAMessageError,
    bytes_field,
    bytes_tag,
    fields,
    number_field,
    rewritten,
)

_MODEL_GRAPH = 7
_MODEL_METADATA_PROPS = 14
_ENTRY_KEY = 1
_ENTRY_VALUE = 2
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_TENSOR_EXTERNAL_DATA = 13
_TENSOR_DATA_LOCATION = 14
_DIMENSION_VALUE, _DIMENSION_NAME = 1, 2
# From a model to the sizes in the shapes of its graph's outputs and of the values between its nodes: graph, then output
# or value_info, type, tensor_type, shape, dim.
_SHAPES = tuple((_MODEL_GRAPH, values, 2, 1, 2, 1) for values in (12, 13))

_DATA_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7}

Chunk = bytes | memoryview


def has_graph(data: bytes) -> bool:
    """Whether a ModelProto holds a graph. Raises NotAMessageError or TruncatedMessageError."""
    # Every field is walked, so that a file cut after its graph does not pass for a whole one.
    return _MODEL_GRAPH in [field.number for field in fields(memoryview(data))]


def metadata_props(data: bytes) -> dict[str, str]:
    """The key-value texts of a ModelProto.

    Raises NotAMessageError or TruncatedMessageError if the bytes are not a message, and ValueError
    (UnicodeDecodeError included) if a key comes twice or a text is not UTF-8.
    """
    texts: dict[str, str] = {}
    for entry in fields(memoryview(data)):
        if entry.number == _MODEL_METADATA_PROPS:
            parts = {field.number: field.message for field in fields(entry.message)}
            key, value = (str(parts.get(number, b""), "utf-8") for number in (_ENTRY_KEY, _ENTRY_VALUE))
            if key in texts:
                raise ValueError(f"metadata key {key!r} comes twice")
            texts[key] = value
    return texts


def has_external_data(data: bytes) -> bool:
    """Whether any weight (graph initializer) lies in another file. Raises as `has_graph` does."""
    for graph in fields(memoryview(data)):
        if graph.number == _MODEL_GRAPH:
            for part in fields(graph.message):
                if part.number == _GRAPH_INITIALIZER and _is_external(part.message):
                    return True
    return False


def metadata_fields(texts: Mapping[str, str]) -> bytes:
    """What gives a ModelProto these key-value texts when it is put behind the model's last byte."""
    entries = (
        bytes_field(_ENTRY_KEY, key.encode()) + bytes_field(_ENTRY_VALUE, value.encode())
        for key, value in texts.items()
    )
    return b"".join(bytes_field(_MODEL_METADATA_PROPS, entry) for entry in entries)


def with_sizes(data: bytes, sizes: Mapping[str, int]) -> bytes:
    """A ModelProto in which each named size of a shape that `sizes` knows has become that number.

    Shapes are those of the graph's outputs and of the values between its nodes.
    """

    def fixed(dimension: memoryview) -> bytes:
        for field in fields(dimension):
            if field.number == _DIMENSION_NAME and (name := str(field.message, "utf-8")) in sizes:
                return number_field(_DIMENSION_VALUE, sizes[name])
        return bytes(dimension)

    for path in _SHAPES:
        data = rewritten(memoryview(data), path, fixed)
    return data


def with_initializers(data: bytes, arrays: Iterable[tuple[str, NDArray[np.float32] | NDArray[np.int64]]]) -> bytes:
    """A ModelProto whose graph has these weights as well: name, and float32 or int64 array of any shape.

    Raises NotAMessageError where there is no graph.
    """
    added = [chunk for name, array in arrays for chunk in _initializer(name, array)]
    parts: list[Chunk] = []
    for field in fields(memoryview(data)):
        if field.number == _MODEL_GRAPH:
            graph = field.message
            length = len(graph) + sum(map(len, added))
            # Joined once, at the end: the weights are as large as the file.
            parts += [bytes_tag(_MODEL_GRAPH, length), graph, *added]
            added = []
        else:
            parts.append(field.whole)
    if added:
        raise NotAMessageError("the model has no graph")
    return b"".join(parts)


def _initializer(name: str, array: NDArray[np.float32] | NDArray[np.int64]) -> tuple[Chunk, ...]:
    """The field of a graph that holds a TensorProto, its values last and not copied where they lie in order."""
    values = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    head = b"".join(number_field(_TENSOR_DIMS, side) for side in array.shape)
    head += number_field(_TENSOR_DATA_TYPE, _DATA_TYPES[array.dtype]) + bytes_field(_TENSOR_NAME, name.encode())
    head += bytes_tag(_TENSOR_RAW_DATA, values.nbytes)
    return bytes_tag(_GRAPH_INITIALIZER, len(head) + values.nbytes) + head, values.reshape(-1).view(np.uint8).data


def _is_external(tensor: memoryview) -> bool:
    return any(
        field.number == _TENSOR_EXTERNAL_DATA or (field.number == _TENSOR_DATA_LOCATION and field.value == 1)
        for field in fields(tensor)
    )
