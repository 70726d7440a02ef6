"""Who makes a tensor of an ONNX graph and who reads it, with everything computed that depends on weights alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator


class GraphIndex:
    """A model's main graph, to be asked from both ends of every tensor. Its nodes are the model's own."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.weights = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)

    def weight(self, name: str) -> NDArray[np.generic]:
        """The array behind an initializer's name."""
        return numpy_helper.to_array(self.weights[name])

    def before(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Every node that this one depends on, each once."""
        return _walk(node, lambda one: [self.producer[name] for name in one.input if name in self.producer])

    def behind(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Every node that depends on this one, each once."""
        return _walk(node, lambda one: [reader for name in one.output for reader in self.readers.get(name, [])])


def _walk(
    start: onnx.NodeProto, neighbours: Callable[[onnx.NodeProto], list[onnx.NodeProto]]
) -> Iterator[onnx.NodeProto]:
    seen: set[str] = set()
    waiting = neighbours(start)
    while waiting:
        node = waiting.pop()
        if node.output[0] not in seen:
            seen.add(node.output[0])
            waiting += neighbours(node)
            yield node


def fold_weights(model: onnx.ModelProto) -> None:
    """Replace every node that depends on weights alone by its result, in place.

    The exporter splits, slices and transposes weights inside the graph, where they cannot be quantised as weights.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if not inputs or not all(name in weights for name in inputs):
            kept.append(node)
            continue
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        alone = helper.make_graph([node], "fold", [], outputs, [weights[name] for name in inputs])
        evaluator = ReferenceEvaluator(helper.make_model(alone, opset_imports=model.opset_import))
        for name, value in zip(node.output, evaluator.run(None, {}), strict=True):
            weights[name] = numpy_helper.from_array(np.asarray(value), name)
    replace_nodes(model, kept, weights)


def replace_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> None:
    """Give a model these nodes, and of the weights those that the nodes or the outputs name."""
    graph = model.graph
    used = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in weights.items() if name in used)
