"""The command `detr predict`: pictures are read, run in batches, and answered as the service answers them."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

import numpy as np
from tqdm import tqdm  # type: ignore[import-untyped]

from model.hub.names import HubError
from model.runtime.answers.detections import OutputError
from model.runtime.artifact.file import ArtifactError
from model.runtime.decode import ImageError
from model.runtime.engines.device_errors import DeviceError, DeviceMemoryError
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.preprocess import make_batch, round_up
from service.errors import NoMasksError, ParameterError
from service.images.answers import TASKS, Prepared, Task
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import LoadedModel, load_model
from service.lifecycle.warm_up import worthwhile_pixels
from service.predict.files import FilesError, PictureFile, find_pictures
from service.predict.results import Answers, Places
from service.process.library_warnings import LibraryFilter, log_warnings
from service.process.trace import Trace
from service.settings import Settings, SettingsError, add_option, given_settings, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `detr predict`."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="PICTURE",
        help="Look for objects in this JPEG, PNG or WebP file, in those of this folder or of this pattern in quotes "
        "('shots/*.jpg'), or in what comes on standard input (-).",
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
        help="Write the answers to this file instead of printing them: a list or, if its name ends in .jsonl, an "
        "answer a line as soon as it is there.",
    )
    parser.add_argument(
        "--overlay",
        type=Path,
        metavar="DIR",
        help="Write each picture with its answer drawn on it to this folder, as PNG and in sub-folders like its own.",
    )
    for name in ("model", "revision", "model_cache", "device", "precision"):
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
        files = find_pictures(args.images, recursive=args.recursive)
        places = Places.of(args, files)
        with _libraries_heard(), places.answers() as answers:
            settings = read_settings(given_settings(args))
            interrupted = _answer_all(args, settings, load_model(settings), files, places, answers)
    except (FilesError, SettingsError, HubError, ArtifactError, DeviceError, NoMasksError, ParameterError) as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(f"cannot write {error.filename}: {error.strerror}")
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


@dataclass(frozen=True, eq=False)
class _Picture:
    """A file that can be answered."""

    number: int  # among the files
    path: Path
    prepared: Prepared
    trace: Trace


def _answer_all(
    args: argparse.Namespace,
    settings: Settings,
    model: LoadedModel,
    files: Sequence[PictureFile],
    places: Places,
    answers: Answers,
) -> bool:
    """Answer the files that can be used; True if somebody interrupted that."""
    task, overlay = (
        TASKS[args.task].of(model.metadata, args.threshold, form, args.classes) for form in ("json", "overlay")
    )
    rules = ImageRules.of(settings, model.metadata)
    try:
        with (
            tqdm(total=len(files), unit=" pictures", disable=None) as bar,  # on terminals only
            ThreadPoolExecutor(settings.cpu_threads) as pool,
        ):
            pictures = _prepared(files, partial(_prepare, rules=rules, draws=bool(places.drawings)), pool, settings)
            for batch in _batches(pictures, model, settings):
                bar.update(len(batch))
                for picture, outputs in _infer(batch, task.mask_threshold, model):
                    try:
                        answer = _answer(task, picture, outputs, model)
                    except OutputError as error:
                        _complain(f"{picture.path}: {error}")
                        continue
                    if places.drawings:
                        places.write_drawing(picture.number, _answer(overlay, picture, outputs, model))
                    answers.add(picture.number, {"file": str(picture.path), **json.loads(answer)})
                    _tell_warnings(picture)
    except KeyboardInterrupt:
        return True
    return False


def _answer(task: Task, picture: _Picture, outputs: ImageOutputs, model: LoadedModel) -> bytes:
    return task.answer(model.metadata, picture.prepared, outputs, picture.trace).body


def _tell_warnings(picture: _Picture) -> None:
    """One line of what libraries warned of, though the picture has its answer."""
    if picture.trace.library_warning is not None:
        more = picture.trace.library_warnings - 1
        _complain(f"{picture.path}: {picture.trace.library_warning}{f' (and {more} more warnings)' if more else ''}")


def _prepare(file: PictureFile, rules: ImageRules, draws: bool) -> tuple[Prepared, Trace]:
    trace = Trace()
    return prepare(file.read(), "", rules, trace, draws), trace


def _prepared(
    files: Sequence[PictureFile],
    prepare_file: Callable[[PictureFile], tuple[Prepared, Trace]],
    pool: ThreadPoolExecutor,
    settings: Settings,
) -> Iterator[_Picture]:
    """The pictures in their order, some of them prepared ahead; a file that cannot be used is told of and left out."""
    ahead: deque[tuple[int, Path, Future[tuple[Prepared, Trace]]]] = deque()
    for number, file in enumerate(files):
        ahead.append((number, file.path, pool.submit(prepare_file, file)))
        if len(ahead) > settings.cpu_threads:
            yield from _finished(*ahead.popleft())
    while ahead:
        yield from _finished(*ahead.popleft())


def _finished(number: int, path: Path, prepared: Future[tuple[Prepared, Trace]]) -> Iterator[_Picture]:
    try:
        picture = _Picture(number, path, *prepared.result())
    except ImageError as error:
        _complain(f"{path}: {error}")
    except OSError as error:
        _complain(f"{path}: {error.strerror}")
    except MemoryError:
        _complain(f"{path}: there is no memory for it")
    else:
        yield picture


def _batches(pictures: Iterator[_Picture], model: LoadedModel, settings: Settings) -> Iterator[list[_Picture]]:
    """Pictures to run together, within the service's limits; a few wait for others of their canvas.

    Without a measured line nothing says which padding would pay, so nothing is padded for another. That also keeps
    padding that leaks, as published, out of a picture's answer.
    """
    waiting: list[_Picture] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) >= 2 * settings.max_batch_size:
            yield _take_batch(waiting, model, settings)
    while waiting:
        yield _take_batch(waiting, model, settings)


def _take_batch(waiting: list[_Picture], model: LoadedModel, settings: Settings) -> list[_Picture]:
    """Take the picture that waits longest, and those that may share a batch with it."""
    step = 1 if model.metadata.padding_leaks else model.canvas_multiple

    def size(picture: _Picture) -> list[int]:
        return [round_up(side, step) for side in picture.prepared.resized.shape[:2]]

    wanted = size(waiting[0])
    pixels = prod(round_up(side, model.canvas_multiple) for side in wanted)
    most = max(1, min(settings.max_batch_size, worthwhile_pixels(model.engine, settings) // pixels))
    batch = [picture for picture in waiting if size(picture) == wanted][:most]
    waiting[:] = [picture for picture in waiting if picture not in batch]
    return batch


def _infer(
    batch: Sequence[_Picture], mask_threshold: float, model: LoadedModel
) -> Iterator[tuple[_Picture, ImageOutputs]]:
    """The network's outputs for each picture; where memory runs out, those of one half after the other's."""
    canvas = make_batch([picture.prepared.resized for picture in batch], model.canvas_multiple)
    try:
        outputs = model.engine.infer(canvas, np.full(len(batch), mask_threshold, dtype=np.float32))
    except DeviceMemoryError:
        if len(batch) == 1:
            _complain(f"{batch[0].path}: there is no memory for it on {model.engine.device}")
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from _infer(half, mask_threshold, model)
    else:
        yield from ((picture, outputs.image(index)) for index, picture in enumerate(batch))
