"""What of a graph becomes int8.

The backbone does by default, with the mask head's convolutions that read its features. The other parts are there for
who wants them. Softmax, norms, the position encoding and the sums in between stay float everywhere, and so do the
heads: with class and box heads in int8 the demo model lost 1.0 point of AP, with all parts below together 0.2.

Batching never changes an answer where the backbone alone is int8: its arithmetic is in whole numbers, and zero, which
padding is set to, is one of them. A step that zeroes padding or takes a maximum stands between equal quantisations,
where it loses nothing. Attention and norms add up floats, in an order that depends on the canvas; the last digit of
such a sum may lift a value over the edge between two quantised ones. So the layers behind them, which are the other
parts, answer in a batch as alone only to int8's rounding.

Between two convolutions of the backbone values stay in int8, residual sums included: only then do ONNX Runtime and
OpenVINO keep one byte a value in memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

import onnx

from model.quantization.graph_index import GraphIndex

NetworkPart = Literal["backbone", "transformer", "masks"]
QUANTIZABLE_PARTS: tuple[NetworkPart, ...] = ("backbone", "transformer", "masks")


@dataclass
class QuantizationPlan:
    """Layers to compute in int8, and activations to quantise."""

    layers: list[tuple[NetworkPart, onnx.NodeProto]] = field(default_factory=list)
    # Activation to the one whose range it has: itself, or one before a step that keeps quantised values as they are.
    range_of: dict[str, str] = field(default_factory=dict)
    # Activations that every reader takes quantised, not only the layers above.
    shared: set[str] = field(default_factory=set)

    def count(self, part: NetworkPart) -> int:
        """Number of int8 layers in a part of the network."""
        return sum(own == part for own, _ in self.layers)


def make_plan(index: GraphIndex, parts: Collection[NetworkPart]) -> QuantizationPlan:
    """Choose layers and activations of a graph whose weights are folded, in these parts of it."""
    plan = QuantizationPlan()
    of_logits = {node.output[0] for node in index.before(index.producer["pred_logits"])}
    for node in index.nodes:
        part = _part(index, node, of_logits, plan.shared)
        if part is None or part not in parts:
            continue
        plan.layers.append((part, node))
        if node.op_type == "Conv":
            chain = list(_kept_exactly(index, node.input[0]))
            plan.range_of |= dict.fromkeys(chain, chain[-1])
            plan.shared |= set(chain)
        else:
            plan.range_of.setdefault(node.input[0], node.input[0])
    for sums in _residual_inputs(index, plan):
        plan.range_of[sums] = sums
        plan.shared.add(sums)
    return plan


def _part(index: GraphIndex, node: onnx.NodeProto, of_logits: set[str], quantized: set[str]) -> NetworkPart | None:
    """The part of the network that a layer belongs to; None for what is no layer or always stays float."""
    if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[1] not in index.weights:
        return None
    if node.op_type == "Conv":
        # Of the mask head's, those that read what the backbone quantises anyway count as the backbone's.
        return "backbone" if node.output[0] in of_logits or node.input[0] in quantized else "masks"
    # What has no norm behind it is a head.
    return "transformer" if any(other.op_type == "LayerNormalization" for other in index.behind(node)) else None


def _kept_exactly(index: GraphIndex, name: str) -> Iterator[str]:
    """An activation and those before it, back to a ReLU, that differ only by zeroed padding or a maximum.

    Where that leads to no ReLU, the activation alone: a sum or a projection has other readers, which need it whole.
    """
    chain = [name]
    while _keeps_values(index, index.producer.get(chain[-1])):
        chain.append(index.producer[chain[-1]].input[0])
    last = index.producer.get(chain[-1])
    yield from chain if last is not None and last.op_type == "Relu" else chain[:1]


def _keeps_values(index: GraphIndex, node: onnx.NodeProto | None) -> bool:
    """Whether a node's outputs are values of its first input, or zero."""
    if node is None or node.op_type not in ("Mul", "MaxPool"):
        return False
    return node.op_type == "MaxPool" or _is_validity(index, node.input[1])


def _is_validity(index: GraphIndex, name: str) -> bool:
    """Whether a tensor is a negated padding mask as numbers, 0 or 1."""
    cast = index.producer.get(name)
    negation = index.producer.get(cast.input[0]) if cast is not None and cast.op_type == "Cast" else None
    return negation is not None and negation.op_type == "Not"


def _residual_inputs(index: GraphIndex, plan: QuantizationPlan) -> list[str]:
    """Results of the backbone's int8 convolutions that are added to another one or to a quantised activation."""
    results = {node.output[0] for part, node in plan.layers if part == "backbone" and node.op_type == "Conv"}
    return sorted(
        name
        for name in results
        if all(
            reader.op_type == "Add" and all(term in results | plan.shared for term in reader.input)
            for reader in index.readers[name]
        )
    )
