"""A tiny model with the contract of a real one, for tests that need an artifact and not its accuracy.

Everything it says follows from colours, so a test can foresee it. Four queries:

0. a thing, class "red", "green" or "blue" by what dominates the image's mean colour; its mask is where the
picture is
   brighter than its middle;
1. stuff, always "ground", at a score of about 0.9, everywhere the thing is not;
2. always no-object;
3. stuff, "sky", sure of itself in bright images and unsure in dark ones; its mask is where blue stands out.

Boxes follow from the mean colour too, so two different images get different boxes. Like a real exported
model, it ignores padding exactly.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model.runtime.artifact.file import (
    FORMAT_VERSION,
    GOLDEN_KEY,
    METADATA_KEY,
    GoldenSample,
    Metadata,
)
from model.runtime.artifact.graph_contract import ATTENTION_OUTPUTS
from model.runtime.artifact.metadata import AttentionShape
from model.runtime.artifact.writing import sealed
from model.runtime.categories import Category
from model.runtime.preprocess import CANVAS_MULTIPLE, make_batch
from model.runtime.resize_rule import Edges

Task = Literal["panoptic", "detection"]

QUERIES = 4
MASK_STRIDE = 4
CATEGORIES = (
    Category(1, "red", True, (220, 40, 40)),
    Category(3, "green", True, (40, 180, 60)),
    Category(7, "blue", True, (50, 80, 220)),
    Category(92, "ground", False, (150, 110, 70)),
    Category(95, "sky", False, (140, 200, 250)),
)

# Class logits of query q are mean colour (0 to 1, red, green, blue) x _CLASS_WEIGHT[:, q] + _CLASS_BIAS[q].
_CLASS_WEIGHT = np.zeros((3, QUERIES, 6), dtype=np.float32)
_CLASS_WEIGHT[[0, 1, 2], 0, [0, 1, 2]] = 20.0
_CLASS_WEIGHT[:, 3, 4] = 3.0
_CLASS_BIAS = np.zeros((QUERIES, 6), dtype=np.float32)
_CLASS_BIAS[1, 3] = 4.0
_CLASS_BIAS[2, 5] = 8.0
_BOX_WEIGHT = (np.arange(3 * QUERIES * 4, dtype=np.float32).reshape(3, QUERIES * 4) * 0.37) % 1.9 - 0.9
_MASK_WEIGHT = np.array([[8, 8, 8], [0, 0, 0], [0, 0, 0], [-6, -6, 14]], dtype=np.float32)
_MASK_BIAS = np.array([-12, 0, -20, -4], dtype=np.float32)


def write_tiny_artifact(path: str | Path, task: Task = "panoptic", attention: bool = False) -> Path:
    """Write a servable artifact and return its path. A panoptic one can give attention, made of its cells' colours."""
    model, metadata = tiny_model(task), tiny_metadata(task)
    if attention:
        _add_attention(model.graph)
        metadata = replace(metadata, attention=AttentionShape(channels=3, heads=1, stride=CANVAS_MULTIPLE))
    return write_artifact(path, model, metadata.to_json(), tiny_golden(model).to_text())


def write_variant(path: str | Path, name: str, shift: float) -> Path:
    """Write a panoptic artifact of another name, whose score of "sky" is another; the file is replaced at once."""
    model = tiny_model()
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "class_bias")
    shifted = numpy_helper.to_array(bias).copy()
    shifted[3 * (len(CATEGORIES) + 1) + 4] += shift
    bias.CopyFrom(numpy_helper.from_array(shifted, bias.name))
    path = Path(path)
    metadata = replace(tiny_metadata(), name=name).to_json()
    return write_artifact(path.with_suffix(".new"), model, metadata, tiny_golden(model).to_text()).replace(path)


def write_artifact(path: str | Path, model: onnx.ModelProto, metadata: str | None, golden: str | None) -> Path:
    """Write a model with these metadata texts (None leaves one out) and a right digest."""
    texts = {METADATA_KEY: metadata, GOLDEN_KEY: golden}
    data = model.SerializeToString()
    path = Path(path)
    path.write_bytes(data + sealed(data, {key: text for key, text in texts.items() if text is not None}))
    return path


def tiny_metadata(task: Task = "panoptic") -> Metadata:
    return Metadata(
        format_version=FORMAT_VERSION,
        name="tiny",
        task=task,
        categories=CATEGORIES,
        num_queries=QUERIES,
        resize=Edges(64, 107),
        canvas_multiple=CANVAS_MULTIPLE,
        mask_stride=MASK_STRIDE if task == "panoptic" else None,
        detect_threshold=0.5,
        segment_threshold=0.6,
        padding="exact",
        provenance={"source": "tests"},
    )


def tiny_golden(model: onnx.ModelProto) -> GoldenSample:
    """Two small images of unequal sizes through the model itself, on the CPU."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 32), (31, 17))]
    batch = make_batch(images)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed: dict[str, NDArray[np.generic]] = {"images": batch.images, "padding_mask": batch.padding_mask}
    if any(node.name == "mask_threshold" for node in session.get_inputs()):
        feed["mask_threshold"] = np.array([0.6, -1.0], dtype=np.float32)
    outputs = dict(zip([node.name for node in session.get_outputs()], session.run(None, feed), strict=True))
    return GoldenSample(
        images=batch.images,
        padding_mask=batch.padding_mask,
        mask_threshold=feed.get("mask_threshold"),  # type: ignore[arg-type]
        pred_logits=outputs["pred_logits"],
        pred_boxes=outputs["pred_boxes"],
        pred_masks=outputs.get("pred_masks"),
        mask_index=outputs.get("mask_index"),
    )


def _add_attention(graph: onnx.GraphProto) -> None:
    """Keys are the mean colours of cells, what the queries want is red, green, blue and nothing, and cells want their
    own colour.
    """
    node, square = helper.make_node, [CANVAS_MULTIPLE, CANVAS_MULTIPLE]
    wanted = np.zeros((3, QUERIES, 3), dtype=np.float32)
    wanted[:, [0, 1, 2], [0, 1, 2]] = 4.0
    constants: dict[str, NDArray[np.generic]] = {
        "cells_shape": np.array([0, 3, -1], np.int64),
        "queries_shape": np.array([-1, QUERIES, 3], np.int64),
        "wanted": wanted.reshape(3, -1),
    }
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.node.extend(
        [
            node("AveragePool", ["masked_planes"], ["cell_planes"], kernel_shape=square, strides=square),
            node("Reshape", ["cell_planes", "cells_shape"], ["cell_columns"]),
            node("Transpose", ["cell_columns"], ["self_attention_keys"], perm=[0, 2, 1]),
            node("Identity", ["self_attention_keys"], ["cross_attention_keys"]),
            node("Mul", ["self_attention_keys", "scale"], ["self_attention_queries"]),
            node("MatMul", ["mean", "wanted"], ["flat_queries"]),
            node("Reshape", ["flat_queries", "queries_shape"], ["cross_attention_queries"]),
        ]
    )
    for name in ATTENTION_OUTPUTS:
        count = QUERIES if name == "cross_attention_queries" else "cells"
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, 3]))


def tiny_model(task: Task = "panoptic") -> onnx.ModelProto:
    """The graph without metadata."""
    classes = len(CATEGORIES) + 1
    constants: dict[str, NDArray[np.generic]] = {
        "scale": np.array(255, np.float32),
        "channel": np.array([3], np.int64),
        "space": np.array([1, 2], np.int64),
        "last": np.array([-1], np.int64),
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "real_classes": np.array([classes - 1], np.int64),
        "mean_shape": np.array([-1, 1, 3], np.int64),
        "logits_shape": np.array([-1, QUERIES, classes], np.int64),
        "boxes_shape": np.array([-1, QUERIES, 4], np.int64),
        "class_weight": _CLASS_WEIGHT.reshape(3, -1),
        "class_bias": _CLASS_BIAS.reshape(-1),
        "box_weight": _BOX_WEIGHT,
        "mask_weight": _MASK_WEIGHT.reshape(QUERIES, 3, 1, 1),
        "mask_bias": _MASK_BIAS,
        "tiny": np.array(1e-6, np.float32),
    }
    nodes = _image_nodes()
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", "height", "width", 3]),
        helper.make_tensor_value_info("padding_mask", TensorProto.BOOL, ["batch", "height", "width"]),
    ]
    outputs = [
        helper.make_tensor_value_info("pred_logits", TensorProto.FLOAT, ["batch", QUERIES, classes]),
        helper.make_tensor_value_info("pred_boxes", TensorProto.FLOAT, ["batch", QUERIES, 4]),
    ]
    if task == "panoptic":
        nodes += _mask_nodes()
        inputs.append(helper.make_tensor_value_info("mask_threshold", TensorProto.FLOAT, ["batch"]))
        outputs += [
            helper.make_tensor_value_info("pred_masks", TensorProto.FLOAT, ["kept", "mask_height", "mask_width"]),
            helper.make_tensor_value_info("mask_index", TensorProto.INT64, ["kept", 2]),
        ]
    used = {name for node in nodes for name in node.input}
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in used]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _image_nodes() -> list[onnx.NodeProto]:
    """Mean colour of the valid pixels, then logits and boxes as linear functions of it."""
    node = helper.make_node
    return [
        node("Cast", ["images"], ["colors"], to=TensorProto.FLOAT),
        node("Div", ["colors", "scale"], ["unit"]),
        node("Not", ["padding_mask"], ["valid_bool"]),
        node("Cast", ["valid_bool"], ["valid_flat"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["valid_flat", "channel"], ["valid"]),
        node("Mul", ["unit", "valid"], ["masked"]),
        node("ReduceSum", ["masked", "space"], ["color_sum"], keepdims=1),
        node("ReduceSum", ["valid", "space"], ["pixels"], keepdims=1),
        node("Div", ["color_sum", "pixels"], ["mean_square"]),
        node("Reshape", ["mean_square", "mean_shape"], ["mean"]),
        node("MatMul", ["mean", "class_weight"], ["class_product"]),
        node("Add", ["class_product", "class_bias"], ["flat_logits"]),
        node("Reshape", ["flat_logits", "logits_shape"], ["pred_logits"]),
        node("MatMul", ["mean", "box_weight"], ["flat_boxes"]),
        node("Sigmoid", ["flat_boxes"], ["unit_boxes"]),
        node("Reshape", ["unit_boxes", "boxes_shape"], ["pred_boxes"]),
    ]


def _mask_nodes() -> list[onnx.NodeProto]:
    """Mean colour of the valid pixels of each cell, a linear mask of it per query, and the kept ones among
    them.
    """
    node = helper.make_node
    square = [MASK_STRIDE, MASK_STRIDE]
    return [
        node("Transpose", ["masked"], ["masked_planes"], perm=[0, 3, 1, 2]),
        node("Transpose", ["valid"], ["valid_planes"], perm=[0, 3, 1, 2]),
        node("AveragePool", ["masked_planes"], ["pooled_colors"], kernel_shape=square, strides=square),
        node("AveragePool", ["valid_planes"], ["pooled_valid"], kernel_shape=square, strides=square),
        node("Max", ["pooled_valid", "tiny"], ["pooled_divisor"]),
        node("Div", ["pooled_colors", "pooled_divisor"], ["cells"]),
        node("Conv", ["cells", "mask_weight", "mask_bias"], ["masks"]),
        node("Softmax", ["pred_logits"], ["probabilities"], axis=-1),
        node("Slice", ["probabilities", "zero", "real_classes", "last"], ["real"]),
        node("ReduceMax", ["real", "last"], ["score"], keepdims=0),
        node("Unsqueeze", ["mask_threshold", "one"], ["threshold"]),
        node("Greater", ["score", "threshold"], ["kept_pairs"]),
        node("NonZero", ["kept_pairs"], ["pair_columns"]),
        node("Transpose", ["pair_columns"], ["mask_index"], perm=[1, 0]),
        node("GatherND", ["masks", "mask_index"], ["pred_masks"]),
    ]
