"""Writes a plan into a graph, as pairs of QuantizeLinear and DequantizeLinear that engines turn into int8 kernels.

onnxruntime's QDQQuantizer was tried in place of this, with the same ranges. It lets a bias fill int32 to 1/10,000, so
that sums overflow in ONNX Runtime: a channel of small weights whose output is 3.0 became 0.0. It also quantises an
activation for all of its readers.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from model.quantization.graph_index import GraphIndex, replace_nodes
from model.quantization.plan import QuantizationPlan
from model.quantization.ranges import Range

_WEIGHT_LIMIT = 127  # -128 is left out, so that weights are symmetric
_BIAS_LIMIT = 2**30


class QuantizedGraph:
    """A graph while pairs are put into it."""

    def __init__(self, index: GraphIndex, plan: QuantizationPlan, ranges: dict[str, Range]) -> None:
        self.index = index
        self.plan = plan
        self.ranges = {name: ranges[source] for name, source in plan.range_of.items()}
        self.weights = dict(index.weights)
        self.constants: list[onnx.NodeProto] = []  # dequantised weights, which depend on nothing

    def write(self) -> None:
        """Put everything into the model."""
        for _, layer in self.plan.layers:
            self._quantize_layer(layer)
        nodes = []
        for node in self.index.nodes:
            nodes.append(node)
            nodes += [step for name in node.output if name in self.ranges for step in self._quantize_activation(name)]
        replace_nodes(self.index.model, self.constants + nodes, self.weights)

    def _quantize_activation(self, name: str) -> list[onnx.NodeProto]:
        """The pair behind an activation, which those who should now read."""
        layers = [layer for _, layer in self.plan.layers]
        for reader in self.index.readers[name]:
            if name in self.plan.shared or any(reader is layer for layer in layers):
                for position, source in enumerate(reader.input):
                    if source == name:
                        reader.input[position] = f"{name}.dequantized"
        scale, zero_point = self.ranges[name]
        parameters = [
            self._constant(f"{name}.scale", np.array(scale, np.float32)),
            self._constant(f"{name}.zero_point", np.array(zero_point, np.uint8)),
        ]
        quantized, result = f"{name}.quantized", f"{name}.dequantized"
        return [
            helper.make_node("QuantizeLinear", [name, *parameters], [quantized], name=quantized),
            helper.make_node("DequantizeLinear", [quantized, *parameters], [result], name=result),
        ]

    def _quantize_layer(self, layer: onnx.NodeProto) -> None:
        """Weights a channel each; the bias too where the result stays in int8, which ONNX Runtime's kernels need."""
        weight = self.index.weight(layer.input[1]).astype(np.float32)
        axis = _output_axis(layer, weight.ndim)
        scale = np.abs(weight).max(tuple(i for i in range(weight.ndim) if i != axis)) / _WEIGHT_LIMIT
        scale[scale == 0] = 1
        bias = self._fitting_bias(layer)
        if bias is not None:
            step = np.float32(self.ranges[layer.input[0]].scale)
            # A channel of weights next to nothing must not make its bias overflow.
            scale = np.maximum(scale, np.abs(bias) / (step * _BIAS_LIMIT))
            layer.input[2] = self._dequantized(f"{layer.name}.bias", bias, (scale * step).astype(np.float32), 0)
        layer.input[1] = self._dequantized(f"{layer.name}.weight", weight, scale.astype(np.float32), axis)

    def _fitting_bias(self, layer: onnx.NodeProto) -> NDArray[np.float32] | None:
        """The bias of a convolution whose result, or what a ReLU makes of it, is quantised."""
        if layer.op_type != "Conv" or len(layer.input) < 3:
            return None
        result = layer.output[0]
        readers = self.index.readers[result]
        if len(readers) == 1 and readers[0].op_type == "Relu":
            result = readers[0].output[0]
        return self.index.weight(layer.input[2]).astype(np.float32) if result in self.ranges else None

    def _dequantized(self, name: str, values: NDArray[np.float32], scale: NDArray[np.float32], axis: int) -> str:
        """A constant stored in whole numbers, with a scale for each index of `axis`: int8, or int32 for a bias."""
        steps = scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
        whole = np.round(values / steps)
        stored = (
            whole.astype(np.int32) if values.ndim == 1 else whole.clip(-_WEIGHT_LIMIT, _WEIGHT_LIMIT).astype(np.int8)
        )
        parameters = [
            self._constant(f"{name}.quantized", stored),
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.zero_point", np.zeros(scale.shape, stored.dtype)),
        ]
        result = f"{name}.dequantized"
        self.constants.append(helper.make_node("DequantizeLinear", parameters, [result], name=result, axis=axis))
        return result

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        self.weights[name] = numpy_helper.from_array(value, name)
        return name


def _output_axis(layer: onnx.NodeProto, dimensions: int) -> int:
    """The axis of a layer's weight that counts its output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in layer.attribute)
    return 0 if layer.op_type == "Conv" or transposed else dimensions - 1
