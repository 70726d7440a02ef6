"""`detr predict`: the service's own steps, from bytes to answer, on files and without a server."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.runtime.answers.detections import OutputError, detections_of
from model.runtime.answers.overlay import draw_detections, draw_panoptic
from model.runtime.artifact.file import ArtifactError
from model.runtime.decode import ImageError, ImageLimits, decode
from model.runtime.engines.device_errors import DeviceError
from model.runtime.engines.raw_outputs import NO_MASKS, ImageOutputs
from model.runtime.preprocess import make_batch, resize
from service.errors import NoMasksError
from service.images.answers import Prepared, check_has_masks, detect_response, segment_response, segments_of
from service.lifecycle.loading import LoadedModel, load_model
from service.settings import Settings, SettingsError, add_option, given_settings, read_settings

Kind = Literal["detect", "segment"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr predict`."""
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="Look for objects in these JPEG, PNG or WebP files."
    )
    parser.add_argument(
        "--task",
        choices=get_args(Kind),
        default="detect",
        help="Find objects and their boxes (detect), or segment the whole picture (segment). The default is "
        "%(default)s.",
    )
    parser.add_argument(
        "--threshold",
        type=_score,
        metavar="SCORE",
        help="Answer what scores above this, from 0 to 1. The default is the model's own.",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Write the answers to this file instead of printing them."
    )
    parser.add_argument(
        "--overlay", type=Path, metavar="DIR", help="Write each picture with its answer drawn on it to this folder."
    )
    for name in ("model", "device", "precision"):
        add_option(parser, name)
    parser.set_defaults(run=run)


def _score(text: str) -> float:
    score = float(text)
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return score


def run(args: argparse.Namespace) -> int:
    """Predict; 0 if every image got its answer, else 1. Each failure is one line on standard error."""
    try:
        settings = read_settings(given_settings(args))
        model = load_model(settings)
        if args.task == "segment":
            check_has_masks(model.metadata)
        answers = list(_predict_all(args, settings, model))
        _write(answers, args.json)
    except (SettingsError, ArtifactError, DeviceError, NoMasksError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"cannot write {error.filename}: {error.strerror}")
    return 0 if len(answers) == len(args.images) else 1


def _complain(reason: str) -> int:
    print(f"detr predict: {reason}", file=sys.stderr)
    return 1


def _write(answers: list[dict[str, Any]], out: Path | None) -> None:
    text = json.dumps(answers, indent=2)
    if out is None:
        print(text)
    else:
        out.write_text(text + "\n", encoding="utf-8")


def _predict_all(args: argparse.Namespace, settings: Settings, model: LoadedModel) -> Iterator[dict[str, Any]]:
    for number, path in enumerate(args.images):
        try:
            data = path.read_bytes()
            answer, picture = predict(data, args.task, args.threshold, settings, model, draw=args.overlay is not None)
        except (ImageError, OutputError) as error:
            _complain(f"{path}: {error}")
        except OSError as error:
            _complain(f"{path}: {error.strerror}")
        else:
            if picture is not None:
                args.overlay.mkdir(parents=True, exist_ok=True)
                # Pictures of the same name in several folders must not replace each other.
                is_first = path.stem not in {earlier.stem for earlier in args.images[:number]}
                name = path.stem if is_first else f"{path.stem}-{number}"
                Image.fromarray(picture).save(args.overlay / f"{name}.png")
            yield {"file": str(path), **answer}


def predict(
    data: bytes, task: Kind, threshold: float | None, settings: Settings, model: LoadedModel, *, draw: bool
) -> tuple[dict[str, Any], NDArray[np.uint8] | None]:
    """Answer one image, as the HTTP contract words it; with `draw`, also draw the answer over it.

    Raises:
        ImageError, NoMasksError: the image cannot be used, or the model has no masks.
        OutputError: the model's numbers are not finite.
    """
    metadata = model.metadata
    image = decode(data, ImageLimits(settings.max_pixels, settings.max_side))
    prepared = Prepared((image.shape[0], image.shape[1]), resize(image, metadata.resize), None)
    if task == "detect":
        threshold = metadata.detect_threshold if threshold is None else threshold
        outputs = _infer(model, prepared, NO_MASKS)
        found = detections_of(outputs.pred_logits, outputs.pred_boxes, prepared.orig_size, threshold)
        answer = detect_response(metadata, prepared.orig_size, found).model_dump(mode="json")
        return answer, draw_detections(image, found, metadata.categories) if draw else None
    threshold = metadata.segment_threshold if threshold is None else threshold
    result = segments_of(metadata, prepared, _infer(model, prepared, threshold), threshold)
    answer = segment_response(metadata, prepared.orig_size, result).model_dump(mode="json")
    return answer, draw_panoptic(image, result, metadata.categories) if draw else None


def _infer(model: LoadedModel, prepared: Prepared, mask_threshold: float) -> ImageOutputs:
    batch = make_batch([prepared.resized], model.canvas_multiple)
    return model.engine.infer(batch, np.array([mask_threshold], dtype=np.float32)).image(0)
