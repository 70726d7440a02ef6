"""The command `detr predict`: pictures are read, run in batches, and answered as the service answers them."""

from __future__ import annotations

import argparse
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm  # type: ignore[import-untyped]

from model.hub.names import HubError
from model.runtime.artifact.file import ArtifactError
from model.runtime.engines.device_errors import DeviceError
from service.errors import EngineRestartError, NoMasksError, ParameterError
from service.images.answers import TASKS, DetectTask, SegmentForm, SegmentMode, SegmentTask
from service.lifecycle.loading import ArtifactLoader, LoadedModel
from service.lifecycle.warm_up import assumed_lines, measured_lines
from service.predict.files import FilesError, PictureFile, find_pictures, image_ids, shown
from service.predict.pictures import Failed, RunPicture
from service.predict.results import Answers, Form, Places
from service.predict.running import PictureRunner
from service.predict.telling import complain, reason, warning_of
from service.predict.video.files import videos_among
from service.predict.video.places import VideoPlaces
from service.process.library_warnings import OURS, LibraryFilter, log_warnings
from service.process.options import add_option, given_settings
from service.process.watched_threads import ENGINE_LOST, threads_left
from service.settings import SettingsError, read_settings

# Pictures from which on it pays to measure first, for up to three seconds, which batches do.
_WORTH_TIMING = 100
# What is asked of each picture, as JSON and as a drawing.
_Tasks = tuple[DetectTask | SegmentTask, DetectTask | SegmentTask]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr predict`."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="PICTURE",
        help="Look for objects in this JPEG, PNG or WebP file (see --formats), in those of this folder or of this "
        "pattern in quotes ('shots/*.jpg'), or in what comes on standard input (-); or in the frames of this video, or "
        "of the camera of this number, with the extra video.",
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
    for name in ("model", "revision", "model_cache", "device", "precision", "formats"):
        add_option(parser, name)
    parser.set_defaults(run=run)


def _add_results(parser: argparse.ArgumentParser) -> None:
    """Where they go, and in which form."""
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="Write the answers to this file instead of printing them.",
    )
    parser.add_argument(
        "--format",
        choices=get_args(Form),
        help="Write a list of answers (json), an answer a line as soon as it is there (jsonl), or a list of results in "
        "COCO's format, which pycocotools reads (coco). The default is json, and jsonl for a file of that ending and "
        "for videos.",
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
    """Predict; 0 if every picture got its answer, 130 if it was interrupted, else 1.

    Each failure is one line on standard error, and so is, for each picture, what libraries warn of.
    """
    try:
        if args.mode is not None and args.task != "segment":
            raise ParameterError("--mode is of segments: give --task segment, too")
        settings = read_settings(given_settings(args))
        files = find_pictures(args.images, recursive=args.recursive, formats=settings.formats)
        videos = videos_among(files, settings.formats)
        if args.every is not None and not videos:
            raise ParameterError("--every is of videos and cameras, and these are pictures")
        places = VideoPlaces.of_videos(args, videos) if videos else Places.of(args, files)
        with _libraries_heard():
            loader = ArtifactLoader(settings, bars=True)
            model = loader.load()
            tasks = _tasks(args, model, places.form)
            lines = measured_lines(model, settings) if len(files) >= _WORTH_TIMING else assumed_lines(model)
            with closing(PictureRunner(model, lines, settings, loader)) as runner, places.answers() as answers:
                if videos:
                    from service.predict.video.answering import VideoAnswers  # takes PyAV

                    to = VideoAnswers(tasks[0], runner, settings, places.drawings, answers)
                    return to.answer_all(videos, args.every or 1)
                interrupted = _answer_all(tasks, runner, files, places, answers)
    except (FilesError, SettingsError, HubError, ArtifactError, DeviceError, NoMasksError, ParameterError) as error:
        return complain(str(error))
    except EngineRestartError as error:
        complain(str(error))
        if threads_left():  # for which Python would wait without end
            os._exit(ENGINE_LOST)
        return ENGINE_LOST
    except OSError as error:
        return complain(f"cannot write {error.filename or args.json or 'the answers'}: {error.strerror}")
    if interrupted or answers.count < len(files) > 1:
        complain(f"{answers.count} of {len(files)} pictures are answered{', then interrupted' if interrupted else ''}")
    return 130 if interrupted else int(answers.count < len(files))


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


def _tasks(args: argparse.Namespace, model: LoadedModel, form: Form) -> _Tasks:
    """Those that the options mean. Raises what `SegmentTask.of` does."""
    task: DetectTask | SegmentTask
    if args.task == "detect":
        task = DetectTask.of(model.metadata, args.threshold, "coco" if form == "coco" else "json", args.classes)
    else:
        shape: SegmentForm = "coco_masks" if form == "coco" else "json"
        task = SegmentTask.of(model.metadata, args.threshold, shape, args.classes, mode=args.mode or "panoptic")
    return task, replace(task, form="overlay")


@dataclass(frozen=True)
class _Made:
    """What was made of a picture."""

    answer: Any  # as JSON has it
    drawing: bytes | None  # a PNG


def _answer_all(
    tasks: _Tasks, runner: PictureRunner, files: Sequence[PictureFile], places: Places, to: Answers
) -> bool:
    """Answer the files that can be used; True if somebody interrupted that."""
    ids, draws = image_ids([file.path for file in files]), bool(places.drawings)

    def make(run: RunPicture[PictureFile]) -> _Made:
        """In a thread, while the engine runs other pictures."""
        bodies = [
            replace(task, image_id=ids[run.number]).answer(runner.metadata, run.prepared, run.outputs, run.trace).body
            for task in (tasks if draws else tasks[:1])
        ]
        return _Made(json.loads(bodies[0]), bodies[1] if draws else None)

    try:
        with tqdm(total=len(files), unit=" pictures", disable=None) as bar:  # on terminals only
            for outcome in runner.run(files, tasks[0].mask_threshold, make, draws=draws, in_order=True):
                if isinstance(outcome, Failed):
                    complain(f"{shown(outcome.picture.path)}: {reason(outcome.error, runner.device)}")
                else:
                    made = outcome.answer
                    if made.drawing is not None:
                        places.write_drawing(outcome.number, made.drawing)
                    to.add(outcome.number, made.answer)
                    if (warning := warning_of(outcome.trace)) is not None:
                        complain(f"{shown(outcome.picture.path)}: {warning}")
                bar.update()
    except KeyboardInterrupt:
        return True
    return False
