"""An openvino.Model as a graph: where its values come from, and how a panoptic one becomes two.

Of a panoptic graph one part belongs to the images, the other to each mask. The mask head computes all masks of a batch
at once, each in 34 MB of R50's at 800 x 1066 pixels. As a graph of its own it runs on a few masks at a time, again and
again in the same memory, and not at all where there are none. Parts within one graph save less: OpenVINO reuses little
of the memory of one part for the next.

Models, nodes and outputs carry no types here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS

# What only changes the shape of a constant or a mask, or its type.
_RESHAPING = ("Broadcast", "Convert", "Gather", "GatherND", "Reshape", "Squeeze", "Transpose", "Unsqueeze")

_PAIRS, _MASKS = "mask_index", "pred_masks"


def outputs_of_images(attention: bool) -> tuple[str, ...]:
    """The outputs of a panoptic graph that belong to the images, one that gives its attention or not."""
    return ("pred_logits", "pred_boxes", _PAIRS, *(ATTENTION_OUTPUTS if attention else ()))


def _unshaped(source: Any) -> Any:
    """The output that a constant or a mask comes from, before its shape and type were changed."""
    while source.get_node().get_type_name() in _RESHAPING:
        source = source.get_node().input_value(0)
    return source


def is_constant(source: Any) -> bool:
    """Whether an output is a constant, or one in another shape."""
    return bool(_unshaped(source).get_node().get_type_name() == "Constant")


def is_validity(source: Any) -> bool:
    """Whether an output was a boolean, and so is 0 or 1."""
    return bool(_unshaped(source).get_element_type().get_type_name() == "boolean")


def sources(node: Any) -> list[Any]:
    """The outputs that a node takes."""
    return [port.get_source_output() for port in node.inputs()]


def split_at_pairs(model: Any, attention: bool = False) -> tuple[Any, Any]:
    """Split an openvino.Model at its output `mask_index`. It is taken apart for that, and of no use afterwards.

    Returns two openvino.Models. The first gives `outputs_of_images`, in order, and behind them what it hands on; the
    second takes the (image, query) pairs, int64 [K, 2], and behind them what is handed on, and gives the masks. Raises
    ValueError where the masks depend on the choice of pairs in another way.
    """
    import openvino
    from openvino import opset13

    results = {name: result for result in model.get_results() for name in result.input_value(0).get_names()}
    pairs = results[_PAIRS].input_value(0)
    varying = _names(model, lambda node: node.get_type_name() == "Parameter")
    chosen = _names(model, lambda node: node.get_type_name() == "NonZero")
    below = _names(model, lambda node: pairs in sources(node)) - {results[_PAIRS].get_friendly_name()}
    parameters = {pairs: opset13.parameter(pairs.get_partial_shape(), pairs.get_element_type())}
    for node in (node for node in model.get_ordered_ops() if node.get_friendly_name() in below):
        for port in node.inputs():
            source = port.get_source_output()
            maker = source.get_node().get_friendly_name()
            if maker in below or maker not in varying:  # computed for each mask, or a constant
                continue
            if source != pairs and maker in chosen:
                raise ValueError(f"{maker} depends on the choice of pairs, beside {_PAIRS}")
            if source not in parameters:
                parameters[source] = opset13.parameter(source.get_partial_shape(), source.get_element_type())
            port.replace_source_output(parameters[source].output(0))
    handed_on = [source for source in parameters if source != pairs]
    of_pairs = openvino.Model([results[_MASKS]], list(parameters.values()), "of_pairs")
    outputs = [results[name] for name in outputs_of_images(attention)] + [
        opset13.result(source) for source in handed_on
    ]
    return openvino.Model(outputs, model.get_parameters(), "of_images"), of_pairs


def _names(model: Any, begins: Callable[[Any], bool]) -> set[str]:
    """Names of the nodes for which `begins` holds, and of all that take something from them."""
    names: set[str] = set()
    for node in model.get_ordered_ops():
        if begins(node) or any(source.get_node().get_friendly_name() in names for source in sources(node)):
            names.add(node.get_friendly_name())
    return names
