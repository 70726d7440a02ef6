"""`detr bench`: how fast a running service answers, or a model file behind a service of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from model.hub.names import HubError
from model.runtime.artifact.file import ArtifactError
from model.runtime.decode import ImageError
from model.runtime.engines.device_errors import DeviceError
from service.bench.bare_engine import bare_engine
from service.bench.connection import BenchTarget, Request
from service.bench.measurement import BenchError, Load, measure
from service.bench.pictures import PictureError, pictures_of, synthetic_pictures
from service.bench.progress import progress
from service.bench.report import Figures, ServerFigures, load_rows, load_table, server_rows
from service.bench.server_process import ServerError, detr_service
from service.errors import NoMasksError
from service.http.paths import DETECT, SEGMENT
from service.images.answers import TASKS, TaskName
from service.lifecycle.loading import find_artifact
from service.process.options import add_option, given_settings
from service.settings import SettingsError, read_settings

# Settings of the service that can be given for a model file, and their options.
_PASSED_ON = ("revision", "model_cache", "device", "devices", "precision", "engine_threads", "max_batch_size")
_SYNTHETIC = 64  # different pictures
_REFUSALS = (
    BenchError, PictureError, ServerError, ImageError, NoMasksError, SettingsError, HubError, ArtifactError,
    DeviceError,
)  # fmt: skip
_PATHS: Mapping[TaskName, str] = {"detect": DETECT, "segment": SEGMENT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr bench`."""
    parser.add_argument(
        "what",
        metavar="URL|FILE|NAME",
        help="Measure the service at this URL, http://HOST:PORT or HOST:PORT, or one that is started with this "
        "artifact or model on the hub.",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default="detect",
        help="Ask for detections or for segments. The default is %(default)s.",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="Ask for what scores above this, from 0 to 1. The default is the model's own.",
    )
    _add_load_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the figures to this file as well.")
    service = parser.add_argument_group("settings of the service that is started with a FILE or a NAME")
    for name in _PASSED_ON:
        add_option(service, name)
    parser.set_defaults(run=run)


def _add_load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="Send the pictures in this folder. The default is to send synthetic ones, of the sizes that COCO has.",
    )
    parser.add_argument(
        "--scale",
        type=_positive,
        default=1.0,
        metavar="FACTOR",
        help="Multiply the sides of synthetic pictures by this. The default is %(default)s.",
    )
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--clients",
        type=_count,
        default=8,
        metavar="COUNT",
        help="Keep this many requests in flight. The default is %(default)s.",
    )
    load.add_argument(
        "--rate",
        type=_positive,
        metavar="COUNT",
        help="Send this many requests a second instead, whether or not earlier ones are answered.",
    )
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=10.0,
        metavar="S",
        help="Measure for this many seconds. The default is %(default)s.",
    )
    parser.add_argument(
        "--warmup",
        type=float,
        default=2.0,
        metavar="S",
        help="Send requests for this many seconds before the measurement. The default is %(default)s.",
    )
    parser.add_argument(
        "--deadline-ms",
        type=_positive,
        default=math.inf,
        metavar="MS",
        help="Count an answer as good (goodput) if it takes at most this many milliseconds. The default is "
        "%(default)s, with which every answer is good.",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="Send this header with every request; the option may be given several times.",
    )


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 with one line on standard error where that is not possible."""
    try:
        found = _bench_url(args) if BenchTarget.is_meant_by(args.what) else _bench_file(args)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except _REFUSALS as error:
        print(f"detr bench: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"detr bench: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _bench_url(args: argparse.Namespace) -> dict[str, Any]:
    for name in given_settings(args):
        option = f"--{name.replace('_', '-')}"
        raise BenchError(f"{option} needs a model file, not a URL; a running service has its own")
    try:
        target = BenchTarget.of(args.what)
    except ValueError as error:
        raise BenchError(str(error)) from None
    figures, server = _measure(args, target, _pictures(args))
    memory = "memory", _megabytes(server.resident_bytes)
    print(load_table([*load_rows(figures), *server_rows(server), memory]))
    return {"load": asdict(figures), "server": asdict(server)}


def _bench_file(args: argparse.Namespace) -> dict[str, Any]:
    pictures = _pictures(args)
    settings = given_settings(args) | {"model": args.what}
    # A name is followed once, here, where a download can show its progress.
    settings |= {"model": str(find_artifact(read_settings(settings)))}
    settings.pop("revision", None)
    with bare_engine(settings, pictures, args.task, args.threshold) as engine:
        times, batch_size = engine.seconds(seconds=args.seconds), engine.batch_size
    limit = batch_size * len(times) / sum(times)
    with detr_service(settings) as server:
        figures, counted = _measure(args, server.target, pictures)
        peak = server.peak_memory_bytes()
    ratio = figures.throughput / limit
    engine_rows = [
        ("engine alone", f"{limit:.2f} images/s, {1000 * median(times):.1f} ms for a batch of {batch_size}"),
        ("service ÷ engine alone", f"{ratio:.3f}"),
    ]
    print(load_table([*load_rows(figures), *server_rows(counted), ("peak memory", _megabytes(peak)), *engine_rows]))
    engine_alone = {"throughput": limit, "batch_size": batch_size, "p50_ms": 1000 * median(times), "ratio": ratio}
    return {"load": asdict(figures), "server": asdict(counted), "peak_memory_bytes": peak, "engine_alone": engine_alone}


def _pictures(args: argparse.Namespace) -> list[bytes]:
    return pictures_of(args.images) if args.images is not None else synthetic_pictures(_SYNTHETIC, args.scale)


def _measure(args: argparse.Namespace, target: BenchTarget, pictures: Sequence[bytes]) -> tuple[Figures, ServerFigures]:
    headers = dict(args.header)
    path = _PATHS[args.task] + ("" if args.threshold is None else f"?threshold={args.threshold:g}")
    requests = [Request(path, picture, headers=headers) for picture in pictures]
    load = Load(requests, args.clients, args.rate, args.seconds, args.warmup)
    with progress(load.warmup + load.seconds):
        return asyncio.run(measure(target, args.task, load, headers, args.deadline_ms))


def _megabytes(count: float | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f} MB"


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip() or any(character in text for character in "\r\n"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 'NAME: VALUE'")
    return name.strip(), value.strip()
