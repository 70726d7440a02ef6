"""The command `detr predict`: pictures are read, run in batches, and answered as the service answers them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm  # type: ignore[import-untyped]

from model.hub.names import HubError
from model.runtime.answers.detections import OutputError
from model.runtime.artifact.file import ArtifactError
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from service.errors import NoMasksError, ParameterError
from service.images.answers import TASKS, DetectTask, SegmentForm, SegmentMode, SegmentTask
from service.lifecycle.loading import LoadedModel, load_model
from service.predict.files import FilesError, PictureFile, find_pictures, image_ids, shown
from service.predict.results import Answers, Form, Places
from service.predict.running import RunPicture, UnusedPicture, in_threads, run_pictures
from service.process.library_warnings import LibraryFilter, log_warnings
from service.process.options import add_option, given_settings
from service.process.trace import Trace
from service.settings import Settings, SettingsError, read_settings

# What is asked of each picture, as JSON and as a drawing.
_Tasks = tuple[DetectTask | SegmentTask, DetectTask | SegmentTask]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr predict`."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="PICTURE",
        help="Look for objects in this JPEG, PNG or WebP file (see --formats), in those of this folder or of this "
        "pattern in quotes ('shots/*.jpg'), or in what comes on standard input (-).",
    )
    parser.add_argument("--recursive", action="store_true", help="Look into the sub-folders of folders, too.")
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
        "COCO's format, which pycocotools reads (coco). The default is json, and jsonl for a file of that ending.",
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="Write each picture with its answer drawn on it to this folder, as PNG and in sub-folders like its own.",
    )
    for name in ("model", "revision", "model_cache", "device", "precision", "formats"):
        add_option(parser, name)
    parser.set_defaults(run=run)


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
        places = Places.of(args, files)
        with _libraries_heard():
            model = load_model(settings)
            tasks = _tasks(args, model, places.form)
            with places.answers() as answers:
                interrupted = _answer_all(tasks, settings, model, files, places, answers)
    except (FilesError, SettingsError, HubError, ArtifactError, DeviceError, NoMasksError, ParameterError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"cannot write {error.filename or args.json or 'the answers'}: {error.strerror}")
    if interrupted or answers.count < len(files) > 1:
        _complain(f"{answers.count} of {len(files)} pictures are answered{', then interrupted' if interrupted else ''}")
    return 130 if interrupted else int(answers.count < len(files))


@contextmanager
def _libraries_heard() -> Iterator[None]:
    """What libraries say within the block is treated as in the service, and written on standard error."""
    handler, root = logging.StreamHandler(), logging.getLogger()
    handler.setFormatter(logging.Formatter("detr predict: %(message)s"))
    handler.addFilter(LibraryFilter())
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            log_warnings()
            yield
    finally:
        root.removeHandler(handler)


def _complain(reason: str) -> int:
    tqdm.write(f"detr predict: {reason}", file=sys.stderr)  # which leaves the bar whole, where there is one
    return 1


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
class _Answered:
    """What became of a picture."""

    number: int  # among the files
    answer: Any  # as JSON has it; None if there is none
    told: str | None  # why there is no answer, or what libraries warned of


def _answer_all(
    tasks: _Tasks,
    settings: Settings,
    model: LoadedModel,
    files: Sequence[PictureFile],
    places: Places,
    answers: Answers,
) -> bool:
    """Answer the files that can be used; True if somebody interrupted that."""
    ids = image_ids([file.path for file in files])

    def answer(run: RunPicture | UnusedPicture) -> _Answered:
        """In a thread, while the engine runs the next batch."""
        if isinstance(run, UnusedPicture):
            return _Answered(run.number, None, _reason(run.error, model))
        picture = run.picture
        try:
            bodies = [
                replace(task, image_id=ids[picture.number])
                .answer(model.metadata, picture.prepared, run.outputs, picture.trace)
                .body
                for task in (tasks if places.drawings else tasks[:1])
            ]
        except OutputError as error:
            return _Answered(picture.number, None, str(error))
        if places.drawings:
            places.write_drawing(picture.number, bodies[1])
        return _Answered(picture.number, json.loads(bodies[0]), _warning(picture.trace))

    runs = run_pictures([file.read for file in files], model, settings, tasks[0].mask_threshold, bool(places.drawings))
    try:
        with (
            tqdm(total=len(files), unit=" pictures", disable=None) as bar,  # on terminals only
            ThreadPoolExecutor(settings.cpu_threads) as pool,
        ):
            for done in in_threads(answer, runs, pool, settings.max_batch_size):
                answers.add(done.number, done.answer)
                if done.told is not None:
                    _complain(f"{shown(files[done.number].path)}: {done.told}")
                bar.update()
    except KeyboardInterrupt:
        return True
    return False


def _reason(error: Exception, model: LoadedModel) -> str:
    """Why a picture has no answer."""
    match error:
        case OSError(strerror=str(reason)):
            return reason
        case DeviceMemoryError():
            return f"there is no memory for it on {model.engine.device}"
        case MemoryError():
            return "there is no memory for it"
        case _:
            return str(error)


def _warning(trace: Trace) -> str | None:
    """What libraries warned of, though the picture has its answer."""
    if trace.library_warning is None:
        return None
    more = trace.library_warnings - 1
    return f"{trace.library_warning}{f' (and {more} more warnings)' if more else ''}"
