"""From a torch module to an ONNX graph with a dynamic batch, height, width and number of masks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch.export import Dim

from model.exporting.served_network import ServedNetwork
from model.network.nested_tensor import pad_images
from model.runtime.preprocess import CANVAS_MULTIPLE

OPSET = 20
MAX_BATCH = 1024
MAX_SIDE = 8192  # pixels; only bounds what the exporter reasons about


def to_onnx(network: ServedNetwork) -> onnx.ModelProto:
    """Trace the network with torch.export and translate it. No metadata yet.

    The same network gives the same graph on every machine: the exporter's notes on where each node came from, which
    hold the paths of this one, are left out.
    """
    # Two unequal images, so that no size is mistaken for a constant.
    canvas = pad_images([torch.zeros(3, 96, 128, dtype=torch.uint8), torch.zeros(3, 160, 64, dtype=torch.uint8)])
    images, padding_mask = canvas.tensors.permute(0, 2, 3, 1).contiguous(), canvas.padding_mask
    batch = Dim("batch", min=1, max=MAX_BATCH)
    # Sides divide by 32; saying so lets the exporter prove that masks and features have the same size.
    height = CANVAS_MULTIPLE * Dim("canvas_height", min=1, max=MAX_SIDE // CANVAS_MULTIPLE)
    width = CANVAS_MULTIPLE * Dim("canvas_width", min=1, max=MAX_SIDE // CANVAS_MULTIPLE)
    pixels = {0: batch, 1: height, 2: width}
    example = (images, padding_mask, torch.tensor([-1.0, -1.0]))
    shapes = (pixels, pixels, {0: batch})
    count = len(network.inputs)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network.eval(),
            example[:count],
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamo=True,
            dynamic_shapes=shapes[:count],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_notes(model.graph)
    return model


def _drop_notes(graph: onnx.GraphProto) -> None:
    """Clear what the exporter noted on a graph and everything in it: stack traces, scopes and the traced source."""
    noted = (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for part in noted:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _drop_notes(inner)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports each constant it does not fold and warns of its own deprecated calls."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
