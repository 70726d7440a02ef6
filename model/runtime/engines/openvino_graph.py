"""Looking around in an openvino.Model, whose nodes carry no types here."""

from __future__ import annotations

from typing import Any

# What only changes the shape of a constant or a mask, or its type.
_RESHAPING = ("Broadcast", "Convert", "Gather", "GatherND", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def unshaped(source: Any) -> Any:
    """The output that a constant or a mask comes from, before its shape and type were changed."""
    while source.get_node().get_type_name() in _RESHAPING:
        source = source.get_node().input_value(0)
    return source


def is_constant(source: Any) -> bool:
    """Whether an output is a constant, or one in another shape."""
    return bool(unshaped(source).get_node().get_type_name() == "Constant")


def is_validity(source: Any) -> bool:
    """Whether an output was a boolean, and so is 0 or 1."""
    return bool(unshaped(source).get_element_type().get_type_name() == "boolean")


def sources(node: Any) -> list[Any]:
    """The outputs that a node takes."""
    return [port.get_source_output() for port in node.inputs()]


def readers(node: Any) -> list[Any]:
    """The nodes that a node's first output goes to."""
    return [port.get_node() for port in node.output(0).get_target_inputs()]
