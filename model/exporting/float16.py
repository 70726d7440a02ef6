"""From a float32 graph to one whose convolutions and matrix products are in float16, for GPUs.

What float16 spoils stays in float32: softmax, norms and their sums (float16 ends at 65504), the position encoding (it
resolves 2048 positions), the normalisation of pixels, and the last layer of every head with all that follows it. What
the attention maps follow from stays in the type it is computed in, so that telling it changes no other output. The
graph's inputs and outputs keep their types.

onnxruntime's converter was tried in place of this. Given the same nodes it leaves 169 conversions in the demo's graph
instead of 112, rounds a weight that float32 reads too, clips weights beyond 65504 without a word, and writes casts of
one name twice, which ONNX Runtime refuses. Given operators alone, a small test model is off by more than its tests
allow.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS

FLOAT, FLOAT16, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BOOL

# Nearly all of the arithmetic.
_PRODUCTS = {"Conv", "Gemm", "MatMul"}
# What stands between two products and is computed in their type, so that nothing is converted back and forth.
_BETWEEN = {"Add", "Mul", "Relu", "MaxPool"}
_MOVING = {"Concat", "Gather", "GatherND", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of an exported float32 graph, in float16 where that is safe.

    Raises ValueError, naming it, where a weight does not fit.
    """
    chosen = _chosen(model.graph)
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    graph = converted.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    floats = _floats(graph)
    low = {name for node in graph.node if node.name in chosen for name in node.output if name in floats}
    nodes: list[onnx.NodeProto] = []
    added: dict[str, str] = {}  # what a tensor is called in the other type
    for node in graph.node:
        wants_low = node.name in chosen
        for i, name in enumerate(node.input):
            if name in floats and (name in low) != wants_low:
                if name not in added:
                    added[name] = f"{name}_{'float16' if wants_low else 'float32'}"
                    if name in weights:
                        graph.initializer.append(_rounded(weights[name], added[name]))
                    else:
                        nodes.append(_cast(name, added[name], FLOAT16 if wants_low else FLOAT))
                node.input[i] = added[name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for output in graph.output:
        if output.name in low:
            _widen(graph, output.name)
    _tidy(graph, low)
    return converted


def _rounded(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    with np.errstate(over="ignore"):
        values = numpy_helper.to_array(tensor).astype(np.float16)
    if not np.isfinite(values).all():
        raise ValueError(f"weight {tensor.name} has values beyond 65504, which float16 cannot hold; use float32")
    return numpy_helper.from_array(values, name)


def _cast(source: str, target: str, dtype: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_to_{target}", to=dtype)


def _widen(graph: onnx.GraphProto, name: str) -> None:
    """Give an output of the graph that is computed in float16 its own type again."""
    narrow = f"{name}_float16"
    for node in graph.node:
        for names in (node.input, node.output):
            for i, other in enumerate(names):
                if other == name:
                    names[i] = narrow
    graph.node.append(_cast(narrow, name, FLOAT))


def _tidy(graph: onnx.GraphProto, low: set[str]) -> None:
    """Drop weights that nothing asks for any more, and note the new types."""
    used = {name for node in graph.node for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)
    there = {tensor.name for tensor in weights} | {name for node in graph.node for name in node.output}
    noted = [value for value in graph.value_info if value.name in there]
    for value in noted:
        if value.name in low:
            value.type.tensor_type.elem_type = FLOAT16
    del graph.value_info[:]
    graph.value_info.extend(noted)


def _chosen(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes that compute in float16."""
    kept, floats, masks = _tail(graph), _floats(graph), _masks(graph)
    weights = {tensor.name for tensor in graph.initializer}  # as they are, and moved
    movers: list[onnx.NodeProto] = []  # of weights
    low: set[str] = set()  # tensors that are computed in float16
    chosen: set[str] = set()
    for node in graph.node:
        inputs = [name for name in node.input if name in floats]
        fits = any(name in low for name in inputs) and all(name in low | weights | masks for name in inputs)
        if node.op_type in _MOVING and inputs and weights.issuperset(inputs):
            movers.append(node)
            weights |= set(node.output)
        elif node.name not in kept and (node.op_type in _PRODUCTS or (fits and node.op_type in _BETWEEN | _MOVING)):
            chosen.add(node.name)
            low |= floats.intersection(node.output)
    users = _users(graph)
    for node in reversed(movers):
        if all(user in chosen for name in node.output for user in users.get(name, ())):
            chosen.add(node.name)
    return chosen


def _users(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Names of the nodes that ask for each tensor."""
    users: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node.name)
    return users


def _tail(graph: onnx.GraphProto) -> set[str]:
    """Names of the nodes from the heads' outputs back to the last products before them, these included."""
    makers = {name: node for node in graph.node for name in node.output}
    tail: set[str] = set()
    waiting = [value.name for value in graph.output if value.name not in ATTENTION_OUTPUTS]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in tail:
            continue
        tail.add(node.name)
        if node.op_type not in _PRODUCTS:
            waiting.extend(node.input)
    return tail


def _masks(graph: onnx.GraphProto) -> set[str]:
    """Tensors that hold only 0 and 1: what was bool, and what was moved from there."""
    types = {value.name: value.type.tensor_type.elem_type for value in _values(graph)}
    masks: set[str] = set()
    for node in graph.node:
        was_bool = node.op_type == "Cast" and types.get(node.input[0]) == BOOL
        if was_bool or (node.op_type in _MOVING and node.input[0] in masks):
            masks |= set(node.output)
    return masks


def _floats(graph: onnx.GraphProto) -> set[str]:
    return {
        *(value.name for value in _values(graph) if value.type.tensor_type.elem_type == FLOAT),
        *(tensor.name for tensor in graph.initializer if tensor.data_type == FLOAT),
    }


def _values(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.output, *graph.value_info)
