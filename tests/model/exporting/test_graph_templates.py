"""The graph templates of the package are what the exporter gives, without the weights."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from model.exporting.graph_templates import TemplateError, graph_template
from model.exporting.served_network import ServedNetwork
from model.exporting.to_onnx import to_onnx
from model.network.config import PRESETS
from model.runtime.engines.golden_recording import fixed_picture
from model.runtime.preprocess import Normalization, make_batch
from model.runtime.resize_rule import PUBLISHED_EDGES
from model.templates.graph_template import FOLDER, GraphTemplate, read_template, write_template
from tests.model.templates.networks_of_presets import network_of

NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.3, 0.2, 0.25))


def test_every_preset_has_a_small_template() -> None:
    sizes = {path.stem: path.stat().st_size for path in FOLDER.iterdir()}
    assert sizes.keys() == PRESETS.keys()
    assert max(sizes.values()) < 100_000
    for name, config in PRESETS.items():
        assert read_template(FOLDER / f"{name}.zip").config == replace(
            config,
            frozen_batch_norm=True,
            dropout=0.1,
            num_queries=100,
            num_classes=91,
            resize=PUBLISHED_EDGES,
            detect_threshold=0.7,
            segment_threshold=0.85,
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_filled_template_is_the_exported_graph(name: str) -> None:
    # The exporter reshapes an embedding of at most 8192 numbers itself, which for few queries saves a node.
    config = replace(PRESETS[name], num_queries=65, num_classes=5, normalization=NORMALIZATION)
    network = network_of(config)
    exported = to_onnx(ServedNetwork(network, NORMALIZATION).folded())
    state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    template = read_template(FOLDER / f"{name}.zip")
    filled = onnx.load_from_string(template.filled(state, config))
    onnx.checker.check_model(filled)
    operators = [Counter(node.op_type for node in model.graph.node) for model in (filled, exported)]
    assert operators[0] == operators[1]
    weights = [
        {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (filled, exported)
    ]
    assert weights[0].keys() == weights[1].keys()
    for key, array in weights[1].items():
        np.testing.assert_allclose(weights[0][key], array, rtol=1e-6, atol=1e-7, err_msg=key)
    assert_same_answers(filled, exported)


def assert_same_answers(filled: onnx.ModelProto, exported: onnx.ModelProto) -> None:
    batch = make_batch([fixed_picture(97, 141), fixed_picture(64, 50)])
    feed = {"images": batch.images, "padding_mask": batch.padding_mask}
    if len(exported.graph.input) == 3:
        feed["mask_threshold"] = np.full(2, -1, np.float32)
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feed)
        for model in (filled, exported)
    )
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6 * max(1.0, float(np.ptp(other))))


def tiny_template(graph: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> GraphTemplate:
    """The template of the demo's network, if the exporter gave this graph for it."""
    monkeypatch.setattr("model.exporting.graph_templates.to_onnx", lambda network: graph)
    return graph_template("demo", PRESETS["detr-demo"])


def graph_with(arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph([], "main_graph", [], [], weights))


def test_a_weight_that_no_recipe_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_with({"unknown": np.arange(100, dtype=np.float32)})
    with pytest.raises(TemplateError, match=r"no recipe makes unknown, float32 \[100\]"):
        tiny_template(graph, monkeypatch)


def test_weights_that_the_graph_does_without_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TemplateError, match=r"the graph uses no detr\.backbone"):
        tiny_template(graph_with({}), monkeypatch)


@pytest.mark.parametrize(
    ("node", "complaint"),
    [
        (helper.make_node("Split", ["a"], ["b"], name="split", num_outputs=1009), "split has a number of queries"),
        (helper.make_node("LeakyRelu", ["a"], ["b"], name="relu", alpha=1013.0), "relu has a number of queries"),
    ],
)
def test_a_size_in_an_attribute_is_refused(
    node: onnx.NodeProto, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.exporting.graph_templates._check_that_all_are_used", lambda state, recipes: None)
    graph = graph_with({})
    graph.graph.node.append(node)
    with pytest.raises(TemplateError, match=complaint):
        tiny_template(graph, monkeypatch)


@pytest.mark.parametrize("side", [8 * 1009, 1013 + 1, "1009*batch"])
def test_a_size_that_is_computed_from_another_is_refused(side: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.exporting.graph_templates._check_that_all_are_used", lambda state, recipes: None)
    graph = graph_with({})
    graph.graph.output.append(helper.make_tensor_value_info("out", TensorProto.FLOAT, [side, 4]))
    with pytest.raises(TemplateError):
        tiny_template(graph, monkeypatch)
    graph = graph_with({"shape": np.array([-1, 2 * 1013], np.int64)})
    with pytest.raises(TemplateError):
        tiny_template(graph, monkeypatch)


def test_the_same_template_gives_the_same_file(tmp_path: Path) -> None:
    shipped = FOLDER / "detr-demo.zip"
    write_template(read_template(shipped), tmp_path / "detr-demo.zip")
    assert (tmp_path / "detr-demo.zip").read_bytes() == shipped.read_bytes()
