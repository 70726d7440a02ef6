"""The float16 graph: what is in float16, what is not, and that it answers alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.exporting.float16 import to_float16
from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.raw_outputs import ALL_MASKS
from model.runtime.preprocess import make_batch
from service.cli import main

DEMO = Path(__file__).parents[3] / "model" / "demo" / "detr-demo.onnx"


@pytest.fixture(scope="module")
def low() -> onnx.ModelProto:
    return to_float16(onnx.load(DEMO))


def types_of(graph: onnx.GraphProto) -> dict[str, int]:
    """Types of all tensors, by inference and not by what the conversion noted."""
    bare = onnx.ModelProto()
    bare.CopyFrom(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]))
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def test_the_graph_is_a_right_one_and_half_as_large(low: onnx.ModelProto) -> None:
    onnx.checker.check_model(low, full_check=True)
    types = types_of(low.graph)
    for value in low.graph.value_info:
        assert value.type.tensor_type.elem_type == types[value.name], value.name
    weights = sum(tensor.ByteSize() for tensor in low.graph.initializer)
    assert weights < 0.52 * sum(tensor.ByteSize() for tensor in onnx.load(DEMO).graph.initializer)


def test_inputs_and_outputs_keep_their_types(low: onnx.ModelProto) -> None:
    before = onnx.load(DEMO).graph
    for kept, changed in ((before.input, low.graph.input), (before.output, low.graph.output)):
        assert [value.SerializeToString() for value in kept] == [value.SerializeToString() for value in changed]


def test_what_attention_follows_from_is_in_the_type_of_its_layer(low: onnx.ModelProto) -> None:
    """Or telling it would change how everything after it is computed."""
    makers = {name: node for node in low.graph.node for name in node.output}
    types = types_of(low.graph)
    for name in ATTENTION_OUTPUTS:
        made = makers[name]
        assert (made.op_type, types[made.input[0]], types[name]) == ("Cast", TensorProto.FLOAT16, TensorProto.FLOAT)


def test_products_are_in_float16_and_what_it_spoils_is_not(low: onnx.ModelProto) -> None:
    types = types_of(low.graph)
    in_low = Counter(node.op_type for node in low.graph.node if types.get(node.output[0]) == TensorProto.FLOAT16)
    in_full = Counter(node.op_type for node in low.graph.node if types.get(node.output[0]) == TensorProto.FLOAT)
    # All but the last layer of each of the three heads.
    assert (in_low["Conv"], in_full["Conv"]) == (23, 1)
    assert (in_low["MatMul"], in_full["MatMul"]) == (70, 2)
    spoilt = {"Softmax", "LayerNormalization", "ReduceSum", "Sqrt", "Reciprocal", "Sin", "Cos", "CumSum", "Pow", "Div"}
    assert spoilt <= set(in_full)
    assert not spoilt & set(in_low)
    assert {"Sigmoid", "ReduceMax"} <= set(in_full)


def test_no_tensor_is_converted_twice(low: onnx.ModelProto) -> None:
    types = types_of(low.graph)
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    casts = [node for node in low.graph.node if node.op_type == "Cast" and types[node.input[0]] in floats]
    assert len({node.input[0] for node in casts}) == len(casts)
    made = {node.output[0] for node in casts}
    assert not made & {node.input[0] for node in casts}, "a conversion of a conversion"


def test_a_weight_that_both_types_ask_for_is_there_in_both() -> None:
    """A tensor that a product and something sensitive share."""
    shared = numpy_helper.from_array(np.eye(4, dtype=np.float32), "shared")
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["product"], name="product"),
        helper.make_node("Softmax", ["product"], ["probabilities"], name="softmax"),
        helper.make_node("Mul", ["probabilities", "shared"], ["scaled"], name="scaled"),
        helper.make_node("MatMul", ["scaled", "shared"], ["y"], name="head"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in ("x", "y")]
    noted = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4])
        for name in ("product", "probabilities", "scaled")
    ]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [shared], value_info=noted)
    low = to_float16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9))
    onnx.checker.check_model(low, full_check=True)
    assert {tensor.name: tensor.data_type for tensor in low.graph.initializer} == {
        "shared": TensorProto.FLOAT,
        "shared_float16": TensorProto.FLOAT16,
    }
    x = np.random.default_rng(0).standard_normal((4, 4), dtype=np.float32)
    expected, found = (
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
        for model in (helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), low)
    )
    assert np.abs(found - expected).max() < 2e-3


def test_the_converted_model_is_left_as_it_was() -> None:
    model = onnx.load(DEMO)
    before = model.SerializeToString()
    to_float16(model)
    assert model.SerializeToString() == before


def masked_sum(side: int) -> onnx.ModelProto:
    """A convolution, and the mean over the valid cells of its result, as the mask head's norms take it."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "weight"], ["features"], name="conv", pads=[1, 1, 1, 1]),
        node("Cast", ["valid_bool"], ["valid"], name="cast", to=TensorProto.FLOAT),
        node("Mul", ["features", "valid"], ["inside"], name="inside"),
        node("ReduceSum", ["inside", "axes"], ["total"], name="total"),
        node("ReduceSum", ["valid", "axes"], ["count"], name="count"),
        node("Div", ["total", "count"], ["mean"], name="mean"),
        node("MatMul", ["mean", "head"], ["y"], name="head"),
    ]
    weights: dict[str, NDArray[np.generic]] = {
        "weight": np.full((1, 1, 3, 3), 1.0, np.float32),
        "axes": np.array([2, 3], np.int64),
        "head": np.ones((1, 1), np.float32),
    }
    floats = {"features": [1, 1, side, side], "valid": [1, 1, side, side], "inside": [1, 1, side, side]}
    floats |= {name: [1, 1, 1, 1] for name in ("total", "count", "mean")}
    noted = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in floats.items()]
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, side, side]),
        helper.make_tensor_value_info("valid_bool", TensorProto.BOOL, [1, 1, side, side]),
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 1])
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ports, [out], initializers, value_info=noted)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_sums_over_many_cells_do_not_overflow() -> None:
    """A mean of 90 over 100 x 100 cells is a sum of 900,000; float16 ends at 65,504."""
    feed: dict[str, NDArray[np.generic]] = {
        "x": np.full((1, 1, 100, 100), 10, np.float32),
        "valid_bool": np.ones((1, 1, 100, 100), np.bool_),
    }
    model = masked_sum(100)
    expected, found = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, feed)[0] for each in (model, to_float16(model))
    )
    assert expected.item() > 80
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)


@pytest.fixture(scope="module")
def exported(small_checkpoint: Path, panoptic_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """What `detr export` makes of the graph that it has translated before, which takes longest."""
    out = tmp_path_factory.mktemp("float16") / "small.onnx"
    proto = onnx.load(panoptic_artifact)
    proto.ClearField("metadata_props")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.export.to_onnx", lambda network: proto)
        main(["export", str(small_checkpoint), "--out", str(out), "--precision", "float16"])
    return read_artifact(out)


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_what_is_exported_says_so_and_can_be_served(exported: Artifact, device: str) -> None:
    assert exported.metadata.precision == "float16"
    engine = open_engine(exported, device, threads=1)
    assert engine.precision == "float16"
    assert 1e-4 < replay_golden(engine, exported) < 0.2


def test_the_golden_sample_is_the_float32_networks(exported: Artifact, panoptic_artifact: Path) -> None:
    assert exported.golden.to_text() == read_artifact(panoptic_artifact).golden.to_text()


def test_it_answers_as_the_float32_file_does(exported: Artifact, panoptic_artifact: Path) -> None:
    batch = make_batch([fixed_picture(97, 141), fixed_picture(150, 101)])
    everything = np.full(2, ALL_MASKS, np.float32)
    found, expected = (
        open_engine(artifact, "cpu", threads=1).infer(batch, everything)
        for artifact in (exported, read_artifact(panoptic_artifact))
    )
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        a, b = getattr(found, name), getattr(expected, name)
        assert a.dtype == np.float32
        assert np.abs(a - b).max() < 0.01 * np.ptp(b)


def test_a_weight_beyond_float16_is_refused_and_nothing_is_written(
    small_checkpoint: Path, panoptic_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = onnx.load(panoptic_artifact)
    tensor = next(
        tensor for tensor in proto.graph.initializer if "linear1.weight" in tensor.name or tensor.dims == [64, 128]
    )
    huge = numpy_helper.to_array(tensor) * np.float32(1e9)
    tensor.CopyFrom(numpy_helper.from_array(huge, tensor.name))
    monkeypatch.setattr("model.export.to_onnx", lambda network: proto)
    with pytest.raises(SystemExit, match="float16"):
        main(["export", str(small_checkpoint), "--out", str(tmp_path / "m.onnx"), "--precision", "float16"])
    assert list(tmp_path.iterdir()) == []


def test_corrupted_float16_weights_are_noticed(exported: Artifact) -> None:
    model = onnx.load_from_string(exported.data)
    tensor = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
    assert tensor.data_type == TensorProto.FLOAT16
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    engine = open_engine(replace(exported, data=model.SerializeToString()), "cpu", threads=1)
    with pytest.raises(ArtifactError, match="golden sample"):
        replay_golden(engine, exported)
