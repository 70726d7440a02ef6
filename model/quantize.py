"""The command `detr quantize`: an artifact whose convolutions and transformer compute in int8, if it is as accurate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from model.data.formats.folders import Split
from model.data.options import add_file_arguments, add_kind_arguments, add_split_argument, split_of
from model.evaluate import EvaluatedModel, evaluate
from model.hub.finding import path_of
from model.hub.names import HubError
from model.quantization.int8_graph import golden_of, int8_graph
from model.quantization.pictures import choose_pictures
from model.quantization.plan import QUANTIZABLE_PARTS, NetworkPart
from model.runtime.answers.detections import OutputError
from model.runtime.artifact.file import Artifact, ArtifactError, read_artifact
from model.runtime.artifact.writing import write_proved
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.engine import DEVICES
from model.runtime.engines.golden_replay import replay_golden
from model.runtime.engines.opening import open_engine
from model.runtime.engines.openvino_engine import missing_for_openvino

JUDGED = ("AP", "AP_mask", "PQ")


class AccuracyError(Exception):
    """The int8 model is less accurate than is allowed; the message says by how much."""


@dataclass(frozen=True)
class Judge:
    """Decides whether an int8 artifact may be written: a data set, and how much may be lost on it."""

    split: Split
    max_drop: Mapping[str, float]  # by figure, those of `JUDGED`; 0.003 is 0.3 points
    device: str

    def figures(self, artifact: Artifact) -> dict[str, float]:
        """AP, and where model and data have masks PQ or, where there are things only, that of masks.

        Raises what opening and evaluating raise.
        """
        # What is promised is a distance to float32, not to the bfloat16 that an engine may choose for such a file.
        precision = "float32" if artifact.metadata.precision == "float32" else "auto"
        loaded = EvaluatedModel(open_engine(artifact, self.device, precision=precision), artifact.metadata)
        figures = evaluate(loaded, self.split, notes=sys.stderr, thing_masks=False).figures()
        return {name: figures[name] for name in JUDGED if name in figures}

    def compare(self, before: Mapping[str, float], after: Mapping[str, float]) -> None:
        """Raise AccuracyError if a figure fell too far."""
        for name, value in after.items():
            drop = before[name] - value
            if not drop <= self.max_drop[name]:  # also refuses NaN
                raise AccuracyError(
                    f"{name} falls from {before[name]:.4f} to {value:.4f}, by {100 * drop:.2f} points, and "
                    f"{100 * self.max_drop[name]:.2f} are allowed ({_option(name)}); nothing was written. "
                    "More pictures like those of the data set, or fewer --parts may help"
                )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `detr quantize`."""
    parser.add_argument(
        "artifact",
        type=Path,
        metavar="FILE|NAME",
        help="Quantise this artifact, a float32 one as `detr export` writes it, or that of this model on the hub.",
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="Calibrate on the pictures in this folder, which have to be like those to be served.",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="Write the artifact to this file.")
    parser.add_argument(
        "--pictures",
        type=int,
        default=300,
        metavar="COUNT",
        help="Calibrate on at most this many pictures, drawn at random. The default is %(default)s.",
    )
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=QUANTIZABLE_PARTS,
        default=QUANTIZABLE_PARTS[:1],
        metavar="PART",
        help=f"Compute these parts in int8: {', '.join(QUANTIZABLE_PARTS)}. With more than the backbone, "
        "an answer depends on its batch by int8's rounding. The default is backbone.",
    )
    _add_accuracy_arguments(parser)


def _add_accuracy_arguments(parser: argparse.ArgumentParser) -> None:
    add_kind_arguments(parser, required=False)
    add_file_arguments(parser, images="annotated-images")
    add_split_argument(parser)
    for name in JUDGED:
        parser.add_argument(
            _option(name),
            type=float,
            default=0.003,
            metavar="FRACTION",
            help=f"Write the file only if {name}, from 0 to 1, falls by no more than this. The default is %(default)s, "
            "0.3 points.",
        )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="Measure on this device; auto is CUDA if it loads, else OpenVINO if it is installed, else the CPU. The "
        "default is %(default)s.",
    )
    parser.add_argument("--unchecked", action="store_true", help="Write the file without measuring its accuracy.")


def _option(figure: str) -> str:
    """The option that says how far a figure may fall."""
    return f"--max-{figure.lower().replace('_', '-')}-drop"


def run(args: argparse.Namespace) -> None:
    """Carry out `detr quantize`: says what became int8, and what that costs. What goes wrong ends in one clear line."""
    try:
        judge = judge_of(args)
        quantize(path_of(args.artifact), args.images, args.out, args.pictures, args.parts, judge)
    except (AccuracyError, HubError, ArtifactError, DeviceError, OutputError, OSError, ValueError) as error:
        raise SystemExit(f"detr quantize: {error}") from error


def judge_of(args: argparse.Namespace) -> Judge | None:
    """What the options want accuracy checked with; None with --unchecked. Raises ValueError where they want neither."""
    named = args.root or args.annotations
    if args.unchecked and (args.data or named):
        raise ValueError("--unchecked measures nothing; leave out either it, or --data and --root")
    if args.unchecked:
        return None
    if not (args.data and named):
        raise ValueError(
            "the accuracy of the int8 model cannot be checked without a data set: give --data and --root, or "
            "--unchecked to write the file anyway"
        )
    max_drop = {name: getattr(args, _option(name)[2:].replace("-", "_")) for name in JUDGED}
    return Judge(split_of(args, images="annotated_images"), max_drop, args.device)


def quantize(
    source: Path,
    images: Path,
    out: Path,
    pictures: int = 300,
    parts: Collection[NetworkPart] = QUANTIZABLE_PARTS[:1],
    judge: Judge | None = None,
) -> None:
    """Write the int8 artifact of a float32 one, calibrated on pictures of a folder, if the judge lets it pass.

    The file appears under its name only then; an older file there is left as it was until then. Raises AccuracyError
    if it does not pass; ArtifactError or ValueError for an artifact that cannot be quantised; what `choose_pictures`,
    opening engines and evaluating raise.
    """
    artifact = read_artifact(source)
    if artifact.metadata.precision != "float32":
        raise ValueError(f"{source.name} is {artifact.metadata.precision} already; quantise the float32 artifact")
    paths = choose_pictures(images, pictures)
    before = judge.figures(artifact) if judge else {}
    proto, counts = int8_graph(artifact, paths, parts)
    print(f"calibrated on {len(paths)} pictures; int8 layers: {', '.join(f'{n} {part}' for part, n in counts.items())}")

    def proof(unproved: Artifact) -> dict[str, float]:
        for device in ("cpu", *([] if missing_for_openvino() else ["openvino"])):
            replay_golden(open_engine(unproved, device), unproved)
        after = judge.figures(unproved) if judge else {}
        for name in after:
            print(f"{name}: {before[name]:.4f} in float32, {after[name]:.4f} in int8")
        if judge:
            judge.compare(before, after)
        return after

    provenance = artifact.metadata.provenance | {"quantized": _how(artifact, len(paths), counts)}
    metadata = replace(artifact.metadata, precision="int8", provenance=provenance)
    write_proved(out, proto.SerializeToString(), metadata, golden_of(proto, artifact.golden), proof)
    if not judge:
        print("the accuracy was not checked")
    sizes = [path.stat().st_size / 1e6 for path in (source, out)]
    print(f"wrote {out} ({sizes[1]:.1f} MB; {source.name} has {sizes[0]:.1f} MB)")


def _how(artifact: Artifact, pictures: int, counts: dict[NetworkPart, int]) -> dict[str, Any]:
    """For the metadata: what was quantised, from what and with what."""
    return {
        "float32_sha256": artifact.digest,
        "pictures": pictures,
        "int8_layers": counts,
        "with": {name: version(name) for name in ("detr-serve", "onnx")} | {"onnxruntime": onnxruntime.__version__},
    }
