"""The command `detr explain`: where the network looked in a picture, as POST /explain answers it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from model.hub.names import HubError
from model.runtime.answers.detections import OutputError
from model.runtime.artifact.file import ArtifactError
from model.runtime.decode import ImageError
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.preprocess import make_batch
from model.runtime.whole_file import whole_file
from service.errors import ServiceError
from service.images.explaining import ExplainTask, points_of
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import LoadedModel, load_model
from service.process.options import add_option, given_settings
from service.process.trace import Trace
from service.settings import Settings, SettingsError, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr explain`."""
    parser.add_argument("image", type=Path, metavar="PICTURE", help="Explain what is found in this picture.")
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="Explain what scores above this, from 0 to 1. The default is the model's own.",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="Explain these classes only: names or category ids with commas between them. The default is all.",
    )
    parser.add_argument(
        "--query", type=int, metavar="INDEX", help="Explain this object query only, whatever its score."
    )
    parser.add_argument(
        "--points",
        metavar="X,Y;...",
        help="Explain these points of the picture, too, in pixels.",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="Write the answer to this file instead of printing it."
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="FILE",
        help="Write the picture with what was looked at painted over it to this file, as PNG: of the points if there "
        "are some, else of the objects. The answer is then printed only if --json asks for it.",
    )
    for name in ("model", "revision", "model_cache", "device", "precision", "formats"):
        add_option(parser, name)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain a picture; what goes wrong is one line on standard error."""
    try:
        settings = read_settings(given_settings(args))
        points = points_of(args.points or "")
        if args.threshold is not None and not 0 <= args.threshold <= 1:
            raise SettingsError(f"--threshold: {args.threshold:g} is not from 0 to 1")
        if args.query is not None and args.query < 0:
            raise SettingsError(f"--query: {args.query} is below 0")
        for out in filter(None, (args.json, args.overlay)):
            if out.exists() and args.image.exists() and out.samefile(args.image):
                raise SettingsError(f"{out} is the picture: write to another file")
        body = args.image.read_bytes()
        model = load_model(settings)
        task = ExplainTask.of(model.metadata, args.threshold, classes=args.classes, query=args.query, points=points)
        answer, drawing = explained(model, settings, task, body, draws=args.overlay is not None)
        for path, content in ((args.json, answer + b"\n"), (args.overlay, drawing)):
            if path is not None and content is not None:
                with whole_file(path) as unfinished:
                    unfinished.write_bytes(content)
    except OSError as error:
        return _complain(f"{error.filename or args.image}: {error.strerror}")
    except (ServiceError, ImageError, OutputError, DeviceMemoryError) as error:
        return _complain(f"{args.image}: {error}")
    except (SettingsError, HubError, ArtifactError, DeviceError) as error:
        return _complain(str(error))
    if args.json is None and args.overlay is None:
        sys.stdout.write(f"{answer.decode()}\n")
    return 0


def explained(
    model: LoadedModel, settings: Settings, task: ExplainTask, body: bytes, *, draws: bool
) -> tuple[bytes, bytes | None]:
    """The answer to a picture's file in JSON, and drawn as PNG where that is wanted.

    Raises:
        ServiceError, ImageError, OutputError, DeviceMemoryError: the picture or what is asked of it cannot be used.
    """
    trace, rules = Trace(), ImageRules.of(settings, model.metadata, model.canvas_multiple)
    prepared = prepare(body, "", rules, trace, draws)
    batch = make_batch([prepared.resized], model.canvas_multiple)
    outputs = model.engine.infer(batch, np.full(1, task.mask_threshold, np.float32), attention=True).image(0)
    if not draws:
        return task.answer(model.metadata, prepared, outputs, trace).body, None
    told, drawn = task.told_and_drawn(model.metadata, prepared, outputs, trace)
    return told.body, drawn.body


def _complain(reason: str) -> int:
    sys.stderr.write(f"detr explain: {reason}\n")
    return 1
