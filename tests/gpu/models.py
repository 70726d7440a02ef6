"""The models of the suite as artifacts, made without torch: the demo, and DETR R50 with the parity weights."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

from model.categories.names import named_category
from model.network.config import PRESETS
from model.runtime.artifact.file import FORMAT_VERSION, Artifact, Metadata, read_artifact
from model.runtime.artifact.writing import write_proved
from model.runtime.engines.golden_recording import record_golden
from model.runtime.engines.onnxruntime_engine import open_on_cpu
from model.runtime.preprocess import CANVAS_MULTIPLE
from model.runtime.resize_rule import Edges
from model.templates.graph_template import FOLDER, read_template
from service.settings import DEMO_MODEL
from tests.gpu.session import either
from tests.parity.parity_weights import value

Model = Literal["demo", "detr-resnet-50", "detr-resnet-50-panoptic"]
Stored = Literal["float32", "float16"]
DEMO: Model = "demo"
R50: Model = "detr-resnet-50"
R50_PANOPTIC: Model = "detr-resnet-50-panoptic"
MODELS = (DEMO, R50, R50_PANOPTIC)
PRECISIONS: tuple[Stored, ...] = ("float32", "float16")

# In a dry run, R50 sees pictures that a CPU answers in milliseconds.
R50_RULE = either(Edges(800, 1333), Edges(96, 160))
PARITY_SEED = 7  # of the weights that the parity data were computed with


@cache
def artifact_file(folder: Path, model: Model, precision: Stored = "float32") -> Path:
    """The path of a model's artifact, which is made in the folder when it is first asked for."""
    if precision == "float16":
        return _in_float16(folder / f"{model}-float16.onnx", artifact_file(folder, model))
    if model == DEMO:
        return DEMO_MODEL
    preset = replace(PRESETS[model], resize=R50_RULE)
    template = read_template(FOLDER / f"{model}.zip")
    shapes = template.shapes(preset)
    state = {key: value(key, shape, PARITY_SEED) for key, shape in shapes.items()}
    graph = template.filled(state, preset)
    metadata = Metadata(
        format_version=FORMAT_VERSION,
        name=model,
        task="panoptic" if preset.masks else "detection",
        categories=tuple(named_category(index, f"class {index}") for index in range(preset.num_classes)),
        num_queries=preset.num_queries,
        resize=preset.resize,
        canvas_multiple=CANVAS_MULTIPLE,
        mask_stride=template.mask_stride,
        detect_threshold=preset.detect_threshold,
        segment_threshold=preset.segment_threshold,
        padding="exact",
        provenance={},
    )
    golden = record_golden(open_on_cpu(graph, preset.masks).infer, preset.masks)
    out = folder / f"{model}.onnx"
    write_proved(out, graph, metadata, golden, lambda _: None)
    return out


def artifact(folder: Path, model: Model, precision: Stored = "float32") -> Artifact:
    """The same, read."""
    return read_artifact(artifact_file(folder, model, precision))


def _in_float16(out: Path, source: Path) -> Path:
    import onnx

    from model.exporting.float16 import to_float16

    read = read_artifact(source)
    proto = onnx.load_model_from_string(read.data)
    del proto.metadata_props[:]
    metadata = replace(read.metadata, precision="float16")
    write_proved(out, to_float16(proto).SerializeToString(), metadata, read.golden, lambda _: None)
    return out
