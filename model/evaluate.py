"""The command `detr evaluate`: AP and PQ of an artifact, through the code that serves it, or of a checkpoint."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.data.evaluation_set import EvaluationBatch, EvaluationSet, collate_evaluation
from model.data.formats.folders import Split
from model.data.loading import PictureLoader
from model.data.options import add_file_arguments, add_kind_arguments, add_split_argument, split_of
from model.evaluation.class_names import with_ids_of_data
from model.evaluation.evaluator import EvaluationResult, Evaluator
from model.evaluation.opening import open_evaluator, open_judged
from model.evaluation.report import write_report
from model.evaluation.table import figures_table
from model.export import metadata_of
from model.exporting.served_network import ServedNetwork
from model.exporting.torch_engine import TorchEngine, torch_device
from model.hub.finding import path_of
from model.hub.names import HubError
from model.network.build import build_model
from model.runtime.answers.detections import OutputError
from model.runtime.artifact.file import ArtifactError, Metadata, read_artifact
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import DEVICES, Engine
from model.runtime.engines.opening import open_engine
from model.runtime.engines.precision import PRECISIONS


class EvaluatedModel(NamedTuple):
    """What is evaluated."""

    engine: Engine
    metadata: Metadata


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr evaluate`."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE|NAME",
        help="Evaluate this artifact (.onnx), this checkpoint, of any kind that `detr export` reads, or this model on "
        "the Hugging Face hub (OWNER/NAME or OWNER/NAME@REVISION).",
    )
    add_kind_arguments(parser)
    add_file_arguments(parser)
    add_split_argument(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="COUNT",
        help="Run this many pictures at once, which changes no figure. The default is %(default)s.",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="COUNT",
        help="Read pictures in this many processes of their own; 0 is the main one. The default is %(default)s.",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="Run the model on this device; auto is CUDA if it loads, else OpenVINO if it is installed and the model "
        "is an artifact, else the CPU. The default is %(default)s.",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="Compute an artifact in this precision, as `detr serve` does; a checkpoint is computed in float32. The "
        "default is %(default)s.",
    )
    parser.add_argument(
        "--per-class", action="store_true", help="Add the figures of every class to the table and to --json."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures to this file as well.")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="Write a page with figures and pictures to this folder."
    )


def run(args: argparse.Namespace) -> None:
    """Carry out `detr evaluate`: prints a table of figures. What goes wrong ends in one clear line."""
    try:
        evaluate_as_told(args)
    except (OSError, ValueError, HubError, CheckpointError, ArtifactError, DeviceError, OutputError) as error:
        # An error in a process that reads pictures comes with that process's traceback; its last line is the error.
        reason = str(error).strip().splitlines()[-1].removeprefix(f"{type(error).__name__}: ")
        raise SystemExit(f"detr evaluate: {reason}") from error


def evaluate_as_told(args: argparse.Namespace) -> None:
    """Evaluate, print, and write what was asked for; raises what can go wrong in any of it."""
    for out in (args.json and args.json.parent, args.report and args.report.parent):
        if out and not out.is_dir():  # said before the pictures are seen, not after
            raise FileNotFoundError(f"there is no folder {out}")
    split = split_of(args)
    loaded = open_for_evaluation(path_of(args.model), args.device, args.precision)
    evaluator = evaluate(loaded, split, batch_size=args.batch_size, workers=args.workers, notes=sys.stderr)
    result = evaluator.result()
    print(figures_table(result, per_class=args.per_class))
    if args.json:
        record = to_record(result, per_class=args.per_class)
        args.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    if args.report:
        print(f"\nwrote {write_report(args.report, loaded.engine, loaded.metadata, evaluator, split.name)}")


def open_for_evaluation(path: Path, device: str = "auto", precision: str = "auto") -> EvaluatedModel:
    """An artifact, or a checkpoint in torch, on a device. Raises what reading either raises, and DeviceError."""
    if path.suffix == ".onnx":
        artifact = read_artifact(path)
        return EvaluatedModel(open_engine(artifact, device, precision=precision), artifact.metadata)
    device = torch_device(device)
    if precision not in ("auto", "float32"):
        raise DeviceError(f"a checkpoint is evaluated in float32; export it to evaluate it in {precision}")
    checkpoint = read_checkpoint(path)
    network = build_model(checkpoint.config)
    network.load_state_dict(checkpoint.state_dict)
    metadata = metadata_of(checkpoint, checkpoint.config, network, path.resolve().stem)
    return EvaluatedModel(TorchEngine(ServedNetwork(network, checkpoint.config.normalization), device), metadata)


def evaluate(
    loaded: EvaluatedModel,
    split: Split,
    *,
    batch_size: int = 1,
    workers: int = 0,
    notes: TextIO | None = None,
    thing_masks: bool = True,
) -> Evaluator:
    """Run the model over every picture, resized and padded as in the service; `figures()` of what comes back says more.

    With `thing_masks` COCO's figures of masks are among them, where model and data have masks. Progress, what is
    evaluated on, and what is odd about the classes go to `notes`, a text stream, if there is one.

    Raises ValueError where the model has no category of the data or the batch size is not positive, FileNotFoundError
    where annotations are missing, and what the data sets raise.
    """
    engine, metadata = loaded
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, not {batch_size}")
    if workers < 0:
        raise ValueError(f"the number of workers must be at least 0, not {workers}")
    data = open_judged(split, masks=metadata.mask_stride is not None)
    categories, lines = with_ids_of_data(metadata.categories, data.categories)
    evaluator = open_evaluator(
        split,
        data,
        categories=categories,
        segment_threshold=metadata.segment_threshold,
        mask_stride=metadata.mask_stride,
        thing_masks=thing_masks,
    )
    if notes:
        print(split.describe(data), file=notes)
        for line in lines:
            print(line, file=notes)
    batches = PictureLoader(
        EvaluationSet(data, metadata.resize),
        batch_sampler=batches_of(
            [metadata.resize.size(*size) for size in data.sizes], batch_size, same_size=metadata.padding_leaks
        ),
        collate_fn=collate_evaluation,
        num_workers=workers,
    )
    batch: EvaluationBatch
    with tqdm(total=len(data), unit=" pictures", file=notes, disable=None if notes else True) as bar:
        for batch in batches:
            thresholds = np.full(len(batch.indices), evaluator.mask_threshold, np.float32)
            evaluator.update(batch.indices, batch.batch.sizes, engine.infer(batch.batch, thresholds))
            bar.update(len(batch.indices))
    return evaluator


def batches_of(sizes: Sequence[tuple[int, int]], batch_size: int, *, same_size: bool) -> list[list[int]]:
    """Indices of pictures of the given (height, width) in pixels, in batches with little padding.

    With `same_size` nothing is padded for another, which is how the service batches for a model whose padding leaks.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda index: (sizes[index][1] / sizes[index][0], sizes[index])):
        fits = batches and len(batches[-1]) < batch_size
        if fits and not (same_size and sizes[batches[-1][0]] != sizes[index]):
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def to_record(result: EvaluationResult, *, per_class: bool) -> dict[str, Any]:
    """The figures as JSON: by name, `notes` where some are undefined and, if asked for, `per_class` by category id."""
    record: dict[str, Any] = dict(result.figures)
    if result.notes:
        record["notes"] = list(result.notes)
    if per_class:
        record["per_class"] = [
            {
                "id": row.category.id,
                "name": row.category.name,
                "isthing": row.category.isthing,
                "annotated": row.annotated,
                **row.figures,
            }
            for row in result.classes
        ]
    return record
