"""The command `detr evaluate`: AP and PQ of an artifact, through the code that serves it, or of a checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.average_precision import average_precision
from model.build import build_model
from model.checkpoint import CheckpointError, read_checkpoint
from model.data.coco_dataset import CocoDataset
from model.data.coco_files import ImageRecord, class_index, class_indices, read_annotations, read_image
from model.data.coco_panoptic import decode_ids
from model.data.folders import KINDS, instances_file, open_dataset, panoptic_file
from model.export import describe
from model.panoptic_quality import PanopticQuality, Segmentation
from model.parity_proof import run_torch
from model.runtime.artifact import ArtifactError, Metadata, read_artifact
from model.runtime.categories import Category
from model.runtime.engine import DEVICES, DeviceError, Engine, open_engine
from model.runtime.panoptic import panoptic
from model.runtime.postprocess import OutputError, scored_boxes
from model.runtime.preprocess import Batch, make_batch, resize
from model.runtime.raw_outputs import NO_MASKS, ImageOutputs, RawOutputs
from model.served_network import ServedNetwork


class TorchEngine:
    """A checkpoint's network where an engine is expected: float32, on the CPU."""

    device = "torch"

    def __init__(self, network: ServedNetwork) -> None:
        self.network = network

    def infer(self, batch: Batch, mask_threshold: NDArray[np.float32]) -> RawOutputs:
        """Run a batch."""
        return run_torch(self.network, batch, mask_threshold)


class Loaded(NamedTuple):
    """What is evaluated."""

    engine: Engine
    metadata: Metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr evaluate`."""
    parser.add_argument("--model", type=Path, required=True, help="an artifact (.onnx) or a checkpoint")
    parser.add_argument("--data", choices=KINDS, required=True, help="what --root holds")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="val", help="(default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="does not change the result (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="of an artifact (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")


def run(args: argparse.Namespace) -> None:
    """Carry out `detr evaluate`: prints a table of figures. What goes wrong ends in one clear line."""
    try:
        figures = evaluate(load(args.model, args.device), args.data, args.root, args.split, batch_size=args.batch_size)
        for name, value in figures.items():
            print(f"{name:7}{value:8.4f}")
        if args.json:
            args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    except (OSError, ValueError, CheckpointError, ArtifactError, DeviceError, OutputError) as error:
        raise SystemExit(f"detr evaluate: {error}") from error


def load(path: Path, device: str = "auto") -> Loaded:
    """An artifact on a device or a checkpoint in torch, on the CPU. Raises what reading either raises."""
    if path.suffix == ".onnx":
        artifact = read_artifact(path)
        return Loaded(open_engine(artifact, device), artifact.metadata)
    if device not in ("auto", "cpu"):
        raise DeviceError(f"a checkpoint is evaluated on the CPU; export it to evaluate it on {device}")
    checkpoint = read_checkpoint(path)
    network = build_model(checkpoint.config)
    network.load_state_dict(checkpoint.state_dict)
    metadata = describe(checkpoint, checkpoint.config, network, path.resolve().stem)
    return Loaded(TorchEngine(ServedNetwork(network)), metadata)


def evaluate(loaded: Loaded, kind: str, root: Path, split: str, *, batch_size: int = 1) -> dict[str, float]:
    """COCO's twelve box figures and, for panoptic data and models, PQ, SQ and RQ, of all, things and stuff.

    Raises ValueError where the model has no category of the data or the batch size is not positive, FileNotFoundError
    where annotations are missing, and what the data sets raise.
    """
    engine, metadata = loaded
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, not {batch_size}")
    with_masks = kind != "coco" and metadata.task == "panoptic"
    data = open_dataset(kind, root, split, masks=False)
    _check_categories(metadata.categories, data.categories)
    instances = instances_file(root, split)
    if not instances.is_file():  # said before the pictures are seen, not after
        raise FileNotFoundError(f"there is no annotation file {instances}")
    quality = PanopticQuality(data.categories)
    truth = _Annotations(root, split, data.categories) if with_masks else None
    detections: list[dict[str, Any]] = []
    for record, size, output in _answers(engine, metadata, data, batch_size, with_masks):
        orig_size = (record.height, record.width)
        detections += _detections(output, record.id, orig_size, metadata.categories)
        if truth is not None:
            quality.update(truth.of(record), _segments(output, size, orig_size, metadata))
    figures = average_precision(instances, detections, [record.id for record in data.records])
    return figures | (quality.figures() if with_masks else {})


def _answers(
    engine: Engine, metadata: Metadata, data: CocoDataset, batch_size: int, with_masks: bool
) -> Iterator[tuple[ImageRecord, tuple[int, int], ImageOutputs]]:
    """Every picture, (height, width) as the network saw it, and outputs; resized and padded as in the service."""
    threshold = metadata.segment_threshold if with_masks else NO_MASKS
    for start in range(0, len(data), batch_size):
        records = data.records[start : start + batch_size]
        pictures = [read_image(data.images, record).permute(1, 2, 0).numpy() for record in records]
        batch = make_batch([resize(picture, metadata.resize) for picture in pictures])
        outputs = engine.infer(batch, np.full(len(records), threshold, np.float32))
        for i, (record, size) in enumerate(zip(records, batch.sizes, strict=True)):
            yield record, size, outputs.image(i)


def _detections(
    output: ImageOutputs, image_id: int, orig_size: tuple[int, int], categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """Every query as a COCO detection, as the published evaluation has it: no threshold, no clipping."""
    found = scored_boxes(output.pred_logits, output.pred_boxes, orig_size)
    xywh = np.concatenate([found.boxes_xyxy[:, :2], found.boxes_xyxy[:, 2:] - found.boxes_xyxy[:, :2]], axis=1)
    return [
        {"image_id": image_id, "category_id": categories[label].id, "bbox": box, "score": score}
        for label, box, score in zip(found.labels.tolist(), xywh.tolist(), found.scores.tolist(), strict=True)
    ]


def _segments(
    output: ImageOutputs, size: tuple[int, int], orig_size: tuple[int, int], metadata: Metadata
) -> Segmentation:
    """The panoptic answer, as in the service."""
    assert output.mask_logits is not None
    assert output.query_index is not None
    assert metadata.mask_stride is not None
    found = panoptic(
        output.pred_logits,
        output.mask_logits,
        output.query_index,
        size,
        orig_size,
        metadata.categories,
        metadata.segment_threshold,
        metadata.mask_stride,
    )
    return Segmentation(found.id_map, {s.id: metadata.categories[s.label].id for s in found.segments})


class _Annotations:
    """The annotated segments of every picture, crowds included: no target for a query, but not void either."""

    def __init__(self, root: Path, split: str, categories: Sequence[Category]) -> None:
        path = panoptic_file(root, split)
        indices = class_indices(categories)
        self.folder = path.with_suffix("")
        self.entries = {entry["image_id"]: entry for entry in read_annotations(path)["annotations"]}
        for entry in self.entries.values():
            for info in entry["segments_info"]:
                class_index(indices, info["category_id"], f"{path.name}: segment {info['id']}")

    def of(self, record: ImageRecord) -> Segmentation:
        """Raises what `read_image` does, for the PNG."""
        entry = self.entries[record.id]
        png = ImageRecord(record.id, entry["file_name"], record.height, record.width)
        id_map = decode_ids(torch.as_tensor(read_image(self.folder, png))).numpy()
        infos = entry["segments_info"]
        crowds = frozenset(info["id"] for info in infos if info.get("iscrowd", 0))
        return Segmentation(id_map, {info["id"]: info["category_id"] for info in infos}, crowds)


def _check_categories(of_model: Sequence[Category], of_data: Sequence[Category]) -> None:
    if not {c.id for c in of_model} & {c.id for c in of_data}:
        raise ValueError("the model and the data have no category id in common: are they of the same classes?")
