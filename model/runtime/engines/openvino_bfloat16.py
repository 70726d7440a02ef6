"""Convolutions in bfloat16, everything else in float32.

The convolutions are nearly all of the arithmetic, and bfloat16 halves their time. What stands behind them is sensitive:
with the whole network in bfloat16, scores of single queries move by up to 0.17 (demo data set), and by up to 0.08 with
the batch an image happens to be in, because matrix products of another shape add in another order, and each rounding to
8 bits makes more of that. With attention, norms and heads in float32 the first is 0.05 and the second is nothing.
Products with weights stay in float32, too, though their sums do not depend on the batch: what they are given has been
through attention, whose last digit does, and a rounding to 8 bits turns that into a step. The feed-forward layers alone
would save 4 % of R50's time, and move scores by up to 0.006 with the batch.

OpenVINO's own hint is for the whole network, and its marks on single nodes do not reach matrix products, so the types
are written into the graph: conversions stand where a tensor goes from one part to the other.
"""

from __future__ import annotations

from typing import Any

from model.runtime.engines.openvino_graph import is_constant, is_validity, sources

# What stands between two convolutions and is computed in their type, so that nothing is converted back and forth.
_BETWEEN = ("Add", "Multiply", "Relu", "MaxPool")


def convolve_in_bfloat16(model: Any) -> None:
    """Change an openvino.Model, in place; its inputs and outputs keep their types."""
    import openvino
    from openvino import opset13

    nodes = model.get_ordered_ops()
    chosen = _chosen(nodes)
    for node in (node for node in nodes if node.get_friendly_name() in chosen):
        for port in node.inputs():
            source = port.get_source_output()
            if _is_float(source) and source.get_node().get_friendly_name() not in chosen:
                port.replace_source_output(opset13.convert(source, "bf16").output(0))
    for node in (node for node in nodes if node.get_friendly_name() in chosen):
        outside = [port for port in node.output(0).get_target_inputs() if _leaves(port, chosen)]
        if outside:
            back = opset13.convert(node.output(0), openvino.Type.f32).output(0)
            for port in outside:
                port.replace_source_output(back)
    model.validate_nodes_and_infer_types()


def _chosen(nodes: list[Any]) -> set[str]:
    """Names of the nodes that compute in bfloat16, from all nodes in the order in which they run."""
    chosen: set[str] = set()
    for node in nodes:
        kind = node.get_type_name()
        if kind in ("Convolution", "GroupConvolution") or (
            kind in _BETWEEN and _is_float(node.output(0)) and _is_between(node, chosen)
        ):
            chosen.add(node.get_friendly_name())
    return chosen


def _is_between(node: Any, chosen: set[str]) -> bool:
    """Whether a node works on a convolution's result, and on nothing that bfloat16 would spoil."""
    others = [source for source in sources(node) if source.get_node().get_friendly_name() not in chosen]
    return len(others) < len(node.inputs()) and all(is_constant(source) or is_validity(source) for source in others)


def _leaves(port: Any, chosen: set[str]) -> bool:
    """Whether a value goes to a node of the other part; one that only asks for its shape does not count."""
    node = port.get_node()
    return node.get_friendly_name() not in chosen and node.get_type_name() != "ShapeOf"


def _is_float(source: Any) -> bool:
    return bool(source.get_element_type().get_type_name() == "f32")
