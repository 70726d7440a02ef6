"""From a float32 artifact and pictures to its graph in int8, and what that graph answers to the golden sample."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from model.quantization.graph_index import GraphIndex, fold_weights
from model.quantization.pictures import resized_pictures
from model.quantization.plan import QUANTIZABLE_PARTS, NetworkPart, make_plan
from model.quantization.ranges import observe
from model.quantization.rewrite import QuantizedGraph
from model.runtime.artifact.file import Artifact
from model.runtime.artifact.golden import GoldenSample
from model.runtime.engines.raw_outputs import ALL_MASKS


def int8_graph(
    artifact: Artifact, pictures: Sequence[Path], parts: Collection[NetworkPart]
) -> tuple[onnx.ModelProto, dict[NetworkPart, int]]:
    """A float32 artifact's graph with parts of it in int8, without metadata, and the number of int8 layers in each.

    Raises ValueError where nothing can be quantised or a picture cannot be read.
    """
    model = onnx.load_from_string(artifact.data)
    del model.metadata_props[:]
    fold_weights(model)
    index = GraphIndex(model)
    plan = make_plan(index, parts)
    if not plan.layers:
        raise ValueError(f"{artifact.path.name} has nothing to quantise in: {', '.join(parts)}")
    metadata = artifact.metadata
    names = sorted(set(plan.range_of.values()))
    with tqdm(total=len(pictures), unit=" pictures", desc="calibrating", disable=None) as bar:
        observed = observe(
            model,
            names,
            resized_pictures(pictures, metadata.resize),
            len(pictures),
            mask_threshold=metadata.segment_threshold if metadata.task == "panoptic" else None,
            progress=bar.update,
        )
    QuantizedGraph(index, plan, {name: observed[name].best_range() for name in names}).write()
    return model, {part: plan.count(part) for part in QUANTIZABLE_PARTS}


def golden_of(model: onnx.ModelProto, sample: GoldenSample) -> GoldenSample:
    """The pictures of a float32 artifact's sample, and what this graph answers to them.

    Every query gets a mask: engines that round otherwise may not agree on which scores exceed a threshold.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed: dict[str, NDArray[np.generic]] = {"images": sample.images, "padding_mask": sample.padding_mask}
    thresholds = None
    if sample.mask_threshold is not None:
        thresholds = np.full_like(sample.mask_threshold, ALL_MASKS)
        feed["mask_threshold"] = thresholds
    recorded = {field.name for field in fields(sample)}
    names = [output.name for output in session.get_outputs() if output.name in recorded]
    outputs = dict(zip(names, session.run(names, feed), strict=True))
    return replace(sample, mask_threshold=thresholds, **outputs)
