"""The command `detr export`: a checkpoint becomes the one file that is served, once it has been proved equal."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import torch

from model.categories.names import NamesError, read_names
from model.checkpoint.artifact_metadata import artifact_metadata
from model.checkpoint.errors import CheckpointError
from model.checkpoint.reading import read_checkpoint
from model.checkpoint.saving_hugging_face import save_hugging_face
from model.checkpoint.strict import Checkpoint
from model.exporting.float16 import to_float16
from model.exporting.parity_proof import TOLERANCES, ParityError, ParityReport, golden_sample, prove
from model.exporting.served_network import ServedNetwork
from model.exporting.to_onnx import to_onnx
from model.exporting.triton_repository import check_place, write_triton_repository
from model.network.build import build_model, detector_of
from model.network.config import PRESETS, ModelConfig
from model.network.detr import DETR
from model.network.segmentation import DETRsegm
from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.artifact.metadata import Metadata
from model.runtime.artifact.writing import write_proved
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.resize_rule import ResizeRule, parse_resize_rule


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr export`."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="Export this checkpoint: one of `detr train` (.safetensors), a published .pth, what another trainer "
        "saved, or a Hugging Face folder. --triton takes an artifact (.onnx) as well.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="Write the artifact to this file, or the Hugging Face model to this folder.",
    )
    parser.add_argument(
        "--triton",
        type=Path,
        metavar="DIR",
        help="Write a model repository for NVIDIA Triton to this folder: the graph (NAME_graph) and a model that takes "
        "pictures and asks it (NAME, which is detr unless --name gives another).",
    )
    parser.add_argument(
        "--format",
        choices=("onnx", "hugging-face"),
        default="onnx",
        help="Write the artifact that is served (onnx), or a folder that transformers reads (hugging-face), with the "
        "same weights. The default is %(default)s.",
    )
    _add_reading_arguments(parser)
    _add_artifact_arguments(parser)


def _add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """What the checkpoint does not say itself."""
    parser.add_argument(
        "--preset",
        choices=sorted(PRESETS),
        help="Take the checkpoint for this network, where its weights leave open which one it is, as they do for DC5.",
    )
    parser.add_argument(
        "--names",
        type=Path,
        metavar="FILE",
        help="Read the names of the classes in this file, one a line or JSON, where they are not COCO's. Where "
        "JSON has ids, classes are assigned by them.",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="Take these weights of a checkpoint that holds several, such as model or ema. The default is the moving "
        "average, where there is one.",
    )
    parser.add_argument(
        "--resize",
        type=_resize_rule,
        metavar="RULE",
        help="Resize images so before the network sees them: SHORTEST,LONGEST edge in pixels (800,1333), WIDTHxHEIGHT "
        "whatever the aspect ratio (640x480), max:WIDTHxHEIGHT to fit into it with the aspect ratio kept, or none. The "
        "default is what the checkpoint says, or 800,1333 where it says nothing.",
    )


def _add_artifact_arguments(parser: argparse.ArgumentParser) -> None:
    """What the artifact that is served is to be like."""
    parser.add_argument(
        "--padding",
        choices=("exact", "published"),
        default="exact",
        help="Keep padding out of every answer (exact), or let it leak into the picture as the published code does "
        "(published), for comparison. The default is %(default)s.",
    )
    parser.add_argument(
        "--precision",
        choices=tuple(TOLERANCES),
        default="float32",
        help="Compute convolutions and matrix products in this precision; float16 is for GPUs. The default is "
        "%(default)s.",
    )
    parser.add_argument(
        "--attention",
        action="store_true",
        help="Let the graph give what its attention is made of, so that `detr explain` and POST /explain can show what "
        "was looked at. It costs nothing where nobody asks for it.",
    )
    parser.add_argument(
        "--name",
        metavar="TEXT",
        help="Call the model by this name in its answers. The default is the artifact's file name without its ending.",
    )


def _resize_rule(text: str) -> ResizeRule:
    """The value of `--resize`. Raises argparse.ArgumentTypeError, which the parser tells, where it is none."""
    try:
        return parse_resize_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(args: argparse.Namespace) -> None:
    """Carry out `detr export`. What goes wrong ends in one clear line."""
    if args.out is None and args.triton is None:
        raise SystemExit("detr export: give --out, where the artifact is written to, or --triton")
    if args.format == "hugging-face":
        _export_hugging_face(args)
    elif args.triton is not None:
        _export_triton(args)
    else:
        _export_artifact(args, args.out)


def _export_artifact(args: argparse.Namespace, out: Path) -> None:
    export_file(
        args.checkpoint,
        out,
        preset=args.preset,
        names=args.names,
        weights=args.weights,
        padding=args.padding,
        name=args.name,
        precision=args.precision,
        resize=args.resize,
        attention=args.attention,
    )


def _export_triton(args: argparse.Namespace) -> None:
    """Write the repository of an artifact, which is made first if it is not there yet."""
    name = args.name or "detr"
    try:
        check_place(args.triton, name)
    except (ValueError, OSError) as error:
        raise SystemExit(f"detr export: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = args.out or Path(folder) / f"{name}.onnx"
        if args.checkpoint.suffix != ".onnx":
            _export_artifact(args, path)
        elif wrong := [option for option, given in _of_checkpoints(args).items() if given]:
            raise SystemExit(
                f"detr export: {args.checkpoint} is an artifact already, and {wrong[0]} is for checkpoints"
            )
        else:
            path = args.checkpoint
        try:
            write_triton_repository(args.triton, read_artifact(path), name)
        except (ArtifactError, ValueError, OSError) as error:
            raise SystemExit(f"detr export: {error}") from error
    print(f"wrote {args.triton}, for tritonserver --model-repository")


def _of_checkpoints(args: argparse.Namespace) -> dict[str, bool]:
    """Options that say how a checkpoint becomes an artifact, and whether they are given."""
    names = ("out", "preset", "names", "weights", "resize")
    return {f"--{name}": getattr(args, name) is not None for name in names} | _of_graphs(args)


def _of_graphs(args: argparse.Namespace) -> dict[str, bool]:
    """Options that say what the artifact's graph is like, and whether they are given."""
    given = {"--padding": args.padding != "exact", "--precision": args.precision != "float32"}
    return given | {"--attention": args.attention}


def _export_hugging_face(args: argparse.Namespace) -> None:
    of_artifact = _of_graphs(args) | {"--name": bool(args.name), "--triton": args.triton is not None}
    if wrong := [option for option, given in of_artifact.items() if given]:
        raise SystemExit(f"detr export: {wrong[0]} is of the artifact that is served, not of a Hugging Face model")
    try:
        checkpoint = _read(args.checkpoint, args.preset, args.names, args.resize, args.weights)
        for note in save_hugging_face(checkpoint, args.out):
            print(note)
    except (CheckpointError, NamesError, ValueError, OSError) as error:
        raise SystemExit(f"detr export: {error}") from error
    task = "ImageSegmentation" if checkpoint.config.masks else "ObjectDetection"
    print(f"wrote {args.out}, for AutoImageProcessor and AutoModelFor{task} of transformers")


def _read(
    path: Path, preset: str | None, names: Path | None, resize: ResizeRule | None, weights: str | None
) -> Checkpoint[torch.Tensor]:
    """The checkpoint as it is told to be read; what was recognised is printed."""
    checkpoint = read_checkpoint(path, preset, read_names(names) if names else None, resize, weights)
    for note in checkpoint.notes:
        print(note)
    return checkpoint


def export_file(
    path: Path,
    out: Path,
    *,
    preset: str | None = None,
    names: Path | None = None,
    weights: str | None = None,
    padding: str = "exact",
    name: str | None = None,
    precision: str = "float32",
    resize: ResizeRule | None = None,
    attention: bool = False,
) -> None:
    """Export a checkpoint's file or folder, and print what was recognised and the worst difference that was found.

    Arguments are the options of `detr export`. What goes wrong is a SystemExit with one clear line.
    """
    try:
        checkpoint = _read(path, preset, names, resize, weights)
        report = export(checkpoint, out, padding=padding, name=name, precision=precision, attention=attention)
    except (CheckpointError, NamesError, ParityError, ArtifactError, ValueError, OSError) as error:
        raise SystemExit(f"detr export: {error}") from error
    for output, worst in report.worst.items():
        print(f"{output}: torch and ONNX Runtime, alone and in a batch, differ by at most {worst:.1e} of the spread")
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


def export(
    checkpoint: Checkpoint[torch.Tensor],
    out: Path,
    *,
    padding: str = "exact",
    name: str | None = None,
    precision: str = "float32",
    attention: bool = False,
) -> ParityReport:
    """Write the artifact of a checkpoint and return how close it is to the network.

    The file appears under its name only after the proof; an older file there is left as it was until then. Raises
    ParityError where graph and network disagree, CheckpointError where classes have no names, ValueError where the
    metadata would not be served, OSError where the file cannot be written.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; the artifact is one file")
    config = replace(checkpoint.config, padding=padding)  # type: ignore[arg-type]
    network = build_model(config)
    served = ServedNetwork(network, config.normalization, attention)
    metadata = replace(
        metadata_of(checkpoint, config, network, name or out.stem),
        precision=precision,  # type: ignore[arg-type]  # the metadata check it
        attention=served.attention,
    )
    network.load_state_dict(checkpoint.state_dict)
    proto = to_onnx(served.folded())
    if precision == "float16":
        proto = to_float16(proto)

    def proof(artifact: Artifact) -> ParityReport:
        engine = open_engine(artifact, "cpu")
        report = prove(
            served, partial(engine.infer, attention=attention), exact=config.padding == "exact", precision=precision
        )
        replay_golden(engine, artifact)
        return report

    return write_proved(out, proto.SerializeToString(), metadata, golden_sample(served), proof)


def metadata_of(
    checkpoint: Checkpoint[torch.Tensor], config: ModelConfig, network: DETR | DETRsegm, name: str
) -> Metadata:
    """What the artifact will say of itself; `network` is what `config` builds."""
    mask_stride = detector_of(network).body.level_strides[0] if config.masks else None
    versions = {"torch": torch.__version__, "onnx": onnx.__version__}
    return artifact_metadata(replace(checkpoint, config=config), name, mask_stride, versions)
