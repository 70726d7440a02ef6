"""The command `detr predict`: pictures are read, run in batches, and answered as the service answers them."""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, get_args

from model.hub.names import HubError
from model.runtime.artifact.file import ArtifactError
from model.runtime.engines.device_errors import DeviceError
from service.errors import EngineRestartError, NoMasksError, ParameterError
from service.images.answers import TASKS, DetectTask, SegmentForm, SegmentMode, SegmentTask
from service.lifecycle.loading import ArtifactLoader, LoadedModel
from service.lifecycle.warm_up import assumed_lines, measured_lines
from service.predict.files import FilesError, Pictures
from service.predict.interruption import Terminated, interrupted_by_sigterm
from service.predict.job import Job
from service.predict.names import NamesFullError
from service.predict.results import Form, Places
from service.predict.running import PictureRunner
from service.predict.telling import complain
from service.predict.video.files import videos_among
from service.process.library_warnings import OURS, LibraryFilter, log_warnings
from service.process.options import add_option, given_settings
from service.process.streams import TERMINATED
from service.process.watched_threads import ENGINE_LOST, threads_left
from service.settings import SettingsError, read_settings

# Pictures from which on it pays to measure first what batches do, which takes as long as 60 of them. Frames of a video
# have one size, so that there is no more to know than whether they share batches.
_WORTH_TIMING = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr predict`."""
    parser.add_argument(
        "images",
        nargs="*",
        metavar="PICTURE",
        help="Look for objects in this JPEG, PNG or WebP file (see --formats), in those of this folder or of this "
        "pattern in quotes ('shots/*.jpg'), or in what comes on standard input (-); or in the frames of this video, or "
        "of the camera of this number, with the extra video.",
    )
    parser.add_argument(
        "--list",
        metavar="FILE",
        help="Look for objects in the files whose names are in this file, or come on standard input (-), one on each "
        "line; there may be millions.",
    )
    parser.add_argument("--recursive", action="store_true", help="Look into the sub-folders of folders, too.")
    parser.add_argument(
        "--every",
        type=_count,
        metavar="N",
        help="Of a video or camera, answer each Nth frame. The default is each one.",
    )
    parser.add_argument(
        "--task",
        choices=TASKS,
        default="detect",
        help="Find objects and their boxes (detect), or segment the whole picture (segment). The default is "
        "%(default)s.",
    )
    parser.add_argument(
        "--mode",
        choices=get_args(SegmentMode),
        help="Segment into one segment for each pixel (panoptic), or into a mask for each object, which may overlap "
        "(instance). The default is panoptic.",
    )
    parser.add_argument(
        "--threshold",
        type=_score,
        metavar="SCORE",
        help="Answer what scores above this, from 0 to 1. The default is the model's own.",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        help="Answer these classes only: names or category ids with commas between them. The default is all.",
    )
    _add_results(parser)
    for name in ("model", "revision", "model_cache", "device", "devices", "precision", "formats"):
        add_option(parser, name)
    parser.set_defaults(run=run)


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Where they go, and in which form."""
    parser.add_argument(
        "--out",
        "--json",
        type=Path,
        metavar="FILE",
        help="Write the answers to this file instead of printing them.",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="Go on with the lines that are in the file of --out, if there is one: leave out the pictures that have a "
        "line, and a line that was cut off. Give everything else as it was given before.",
    )
    parser.add_argument(
        "--format",
        choices=get_args(Form),
        help="Write a list of answers (json), a line for each picture as soon as it is there, with its answer or why "
        "it has none (jsonl), or a list of results in COCO's format, which pycocotools reads (coco). The default is "
        "json, and jsonl for a file of that ending, for videos and for a --list.",
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="Write each picture with its answer drawn on it to this folder, as PNG and in sub-folders like its own, "
        "and each video as MP4.",
    )


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return count


def _score(text: str) -> float:
    score = float(text)
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return score


def run(args: argparse.Namespace) -> int:
    """Predict; 0 if every picture got its answer, 130 or 143 if it was interrupted or terminated, 4 if the engine is
    lost, else 1.

    Each failure is one line on standard error, and so is, for each picture, what libraries warn of.
    """
    try:
        with interrupted_by_sigterm():
            return _run(args)
    except Terminated:
        return TERMINATED


def _run(args: argparse.Namespace) -> int:
    try:
        if args.mode is not None and args.task != "segment":
            raise ParameterError("--mode is of segments: give --task segment, too")
        settings = read_settings(given_settings(args))
        pictures = Pictures(args.images, args.list, recursive=args.recursive, formats=settings.formats)
        videos = [] if args.list is not None else videos_among(pictures, settings.formats)
        if args.every is not None and not videos:
            raise ParameterError("--every is of videos and cameras, and these are pictures")
        places = Places.of(args, pictures, videos)
        with _libraries_heard():
            loader = ArtifactLoader(settings, bars=True)
            model = loader.load()
            task = _task(args, model, places.form)
            is_much = places.count is None or places.count >= _WORTH_TIMING
            lines = measured_lines(model, settings) if is_much else assumed_lines(model, settings)
            with closing(PictureRunner(model, lines, settings, loader)) as runner, places.results() as results:
                if videos:
                    from service.predict.video.answering import VideoAnswers  # takes PyAV

                    return VideoAnswers(task, runner, settings, results).answer_all(videos, args.every or 1)
                return Job(task, runner, places, results).run()
    except (FilesError, NamesFullError, SettingsError, HubError, ArtifactError, DeviceError) as error:
        return complain(str(error))
    except (NoMasksError, ParameterError) as error:
        return complain(str(error))
    except EngineRestartError as error:
        complain(f"{error}; run it again, with --resume if it wrote lines to a file")
        if threads_left():  # for which Python would wait without end
            os._exit(ENGINE_LOST)
        return ENGINE_LOST
    except OSError as error:
        return complain(f"cannot use {error.filename or args.out or 'standard output'}: {error.strerror}")


@contextmanager
def _libraries_heard() -> Iterator[None]:
    """What libraries say within the block is treated as in the service, and written on standard error."""
    handler, root = logging.StreamHandler(), logging.getLogger()
    handler.setFormatter(_OneLine("detr predict: %(message)s"))
    handler.addFilter(LibraryFilter())
    handler.addFilter(_is_told)
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            log_warnings()
            yield
    finally:
        root.removeHandler(handler)


class _OneLine(logging.Formatter):
    """Of an exception, what it says and not where it was raised."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """See logging.Formatter."""
        return ""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        error = record.exc_info[1] if record.exc_info else None
        return super().format(record).rstrip() + (f": {type(error).__name__}: {error}" if error else "")


def _is_told(record: logging.LogRecord) -> bool:
    """Whether a line of the service is for whoever runs this: not how it gets along with little memory."""
    return record.levelno >= logging.ERROR or record.name.partition(".")[0] not in OURS


def _task(args: argparse.Namespace, model: LoadedModel, form: Form) -> DetectTask | SegmentTask:
    """What the options ask of each picture. Raises what `SegmentTask.of` does."""
    if args.task == "detect":
        return DetectTask.of(model.metadata, args.threshold, "coco" if form == "coco" else "json", args.classes)
    shape: SegmentForm = "coco_masks" if form == "coco" else "json"
    return SegmentTask.of(model.metadata, args.threshold, shape, args.classes, mode=args.mode or "panoptic")
