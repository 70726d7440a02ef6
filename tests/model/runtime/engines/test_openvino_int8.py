"""Padding of an int8 graph is cleared in 8 bits where that is the same, and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13

from model.runtime.engines.openvino_engine import openvino_core
from model.runtime.engines.openvino_int8 import zero_padding_in_int8

SIDE, HIGH = 6, 4.0


def quantized(value: Any, high: float, *, scale: float = HIGH / 255, zero: int = 0, levels: int = 256) -> Any:
    """In 8 bits and back, as OpenVINO reads QuantizeLinear and DequantizeLinear."""
    limits = [np.float32(limit) for limit in (0, high, 0, 255)]
    in_8_bits = opset13.convert(opset13.fake_quantize(value, *map(opset13.constant, limits), levels), "u8")
    shifted = opset13.subtract(opset13.convert(in_8_bits, "f32"), opset13.constant(np.float32(zero)))
    return opset13.multiply(shifted, opset13.constant(np.float32(scale)))


def network(masked: Any = None, **changes: Any) -> Any:
    """Quantised, set to zero where it is padding, quantised again, and summed up over 3 x 3 pixels."""
    image = opset13.parameter([-1, 2, -1, -1], np.float32, name="image")
    padding = opset13.parameter([-1, 1, -1, -1], np.bool_, name="padding")
    validity = opset13.convert(opset13.logical_not(padding), "f32")
    product = opset13.multiply(quantized(opset13.relu(image), HIGH, **changes), validity)
    again = masked(product) if masked else quantized(product, HIGH)
    kernel = np.arange(36, dtype=np.float32).reshape(2, 2, 3, 3) / 36
    summed = opset13.convolution(again, opset13.constant(kernel), [1, 1], [1, 1], [1, 1], [1, 1])
    return openvino.Model([summed], [image, padding], "network")


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def run(model: Any) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    image = rng.normal(0, HIGH / 2, (2, 2, SIDE, SIDE)).astype(np.float32)
    padding = np.zeros((2, 1, SIDE, SIDE), bool)
    padding[0, :, 4:], padding[1, :, :, 3:] = True, True
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: NDArray[np.float32] = compiled([image, padding])[0]
    return found


def test_it_is_cleared_in_8_bits_and_comes_to_the_same() -> None:
    model, plain = network(), network()
    zero_padding_in_int8(model)
    assert kinds(model).count("BitwiseAnd") == 1
    assert kinds(model).count("FakeQuantize") == kinds(plain).count("FakeQuantize") - 1
    found = run(model)
    assert np.abs(found).max() > 1
    np.testing.assert_allclose(found, run(plain), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"zero": 3},  # padding, which is zero, is another number there
        {"scale": 2 * HIGH / 255},  # taken back to other values than it was made of
        {"levels": 200},
        {"masked": lambda product: product},  # somebody wants the floats
        {"masked": lambda product: quantized(product, HIGH / 2)},  # with another range
        {"masked": lambda product: opset13.add(product, quantized(product, HIGH))},  # and both
    ],
    ids=["zero", "scale", "levels", "floats", "range", "both"],
)
def test_where_it_is_not_the_same_nothing_changes(changes: dict[str, Any]) -> None:
    model = network(**changes)
    before = kinds(model)
    zero_padding_in_int8(model)
    assert kinds(model) == before


def test_a_float_graph_stays_as_it_is() -> None:
    image = opset13.parameter([-1, 2, -1, -1], np.float32)
    padding = opset13.parameter([-1, 1, -1, -1], np.bool_)
    product = opset13.multiply(image, opset13.convert(padding, "f32"))
    model = openvino.Model([opset13.relu(product)], [image, padding], "floats")
    before = kinds(model)
    zero_padding_in_int8(model)
    assert kinds(model) == before
