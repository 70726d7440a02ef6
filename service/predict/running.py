"""Pictures through a loaded model without a server: prepared ahead in threads, run in batches, each with what
becomes of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from model.runtime.decode import ImageError
from model.runtime.engines.device_errors import DeviceMemoryError
from model.runtime.engines.raw_outputs import ImageOutputs
from model.runtime.preprocess import make_batch, round_up
from service.errors import ServiceError
from service.images.answers import Prepared
from service.images.prepare import ImageRules, prepare
from service.lifecycle.loading import LoadedModel
from service.lifecycle.warm_up import worthwhile_pixels
from service.process.trace import Trace
from service.settings import Settings

T = TypeVar("T")
R = TypeVar("R")
ReadPicture = Callable[[], bytes]  # raises OSError if it cannot be read


@dataclass(frozen=True, eq=False)
class ReadyPicture:
    """A picture that can be answered."""

    number: int  # among the pictures, from 0
    prepared: Prepared
    trace: Trace


@dataclass(frozen=True, eq=False)
class RunPicture:
    """A picture with the network's outputs for it."""

    picture: ReadyPicture
    outputs: ImageOutputs


@dataclass(frozen=True)
class UnusedPicture:
    """A picture that has no answer."""

    number: int  # among the pictures, from 0
    # ServiceError, ImageError, OSError, MemoryError, or of the device DeviceMemoryError
    error: Exception


def run_pictures(
    pictures: Iterable[ReadPicture], model: LoadedModel, settings: Settings, mask_threshold: float, draws: bool = False
) -> Iterator[RunPicture | UnusedPicture]:
    """Run pictures through the network, as the service does; a few are ahead of the network, so memory is bounded.

    Args:
        pictures: how each is read, which is done in threads.
        model: that runs them.
        settings: limits, and the number of threads.
        mask_threshold: of a task, see there.
        draws: answers are drawn on the pictures.

    Returns:
        Each picture once; the order is near that of the pictures.
    """
    rules = ImageRules.of(settings, model.metadata, model.canvas_multiple)
    with ThreadPoolExecutor(settings.cpu_threads) as pool:
        waiting: list[ReadyPicture] = []
        # As many as a batch are prepared while another runs.
        ahead = settings.cpu_threads + settings.max_batch_size
        for picture in _prepared(pictures, partial(_prepare, rules=rules, draws=draws), pool, ahead):
            if isinstance(picture, UnusedPicture):
                yield picture
                continue
            waiting.append(picture)
            # A few wait for others of their canvas.
            if len(waiting) >= 2 * settings.max_batch_size:
                yield from _run_batch(_take_batch(waiting, model, settings), mask_threshold, model)
        while waiting:
            yield from _run_batch(_take_batch(waiting, model, settings), mask_threshold, model)


def in_threads(work: Callable[[T], R], items: Iterable[T], pool: ThreadPoolExecutor, ahead: int) -> Iterator[R]:
    """The results of work on items, in their order; that of some is done while later items are made.

    Where making the next item fails or is interrupted, the results of those before come first. Raises what `work`
    raises, too.

    Args:
        work: done in the pool.
        items: made here.
        pool: of threads.
        ahead: items whose results may wait.
    """
    waiting: deque[Future[R]] = deque()
    failure: BaseException | None = None
    making = iter(items)
    while True:
        try:
            waiting.append(pool.submit(work, next(making)))
            if len(waiting) > ahead:
                wait([waiting[0]])
        except StopIteration:
            break
        except BaseException as error:  # an interrupt as well, which may come while this waits
            failure = error
            break
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
    if failure is not None:
        raise failure


def _prepare(number: int, read: ReadPicture, rules: ImageRules, draws: bool) -> ReadyPicture:
    trace = Trace()
    return ReadyPicture(number, prepare(read(), "", rules, trace, draws), trace)


def _prepared(
    pictures: Iterable[ReadPicture],
    prepare_one: Callable[[int, ReadPicture], ReadyPicture],
    pool: ThreadPoolExecutor,
    most: int,
) -> Iterator[ReadyPicture | UnusedPicture]:
    """The pictures in their order, some of them prepared ahead."""
    ahead: deque[tuple[int, Future[ReadyPicture]]] = deque()
    for number, read in enumerate(pictures):
        ahead.append((number, pool.submit(prepare_one, number, read)))
        if len(ahead) > most:
            yield _finished(*ahead.popleft())
    while ahead:
        yield _finished(*ahead.popleft())


def _finished(number: int, prepared: Future[ReadyPicture]) -> ReadyPicture | UnusedPicture:
    try:
        return prepared.result()
    except (ServiceError, ImageError, OSError, MemoryError) as error:
        return UnusedPicture(number, error)


def _take_batch(waiting: list[ReadyPicture], model: LoadedModel, settings: Settings) -> list[ReadyPicture]:
    """Take the picture that waits longest, and those that may share a batch with it, within the service's limits.

    Without a measured line nothing says which padding would pay, so nothing is padded for another. That also keeps
    padding that leaks, as published, out of a picture's answer.
    """
    step = 1 if model.metadata.padding_leaks else model.canvas_multiple

    def size(picture: ReadyPicture) -> list[int]:
        return [round_up(side, step) for side in picture.prepared.resized.shape[:2]]

    wanted = size(waiting[0])
    pixels = prod(round_up(side, model.canvas_multiple) for side in wanted)
    most = max(1, min(settings.max_batch_size, worthwhile_pixels(model.engine, settings) // pixels))
    batch = [picture for picture in waiting if size(picture) == wanted][:most]
    waiting[:] = [picture for picture in waiting if picture not in batch]
    return batch


def _run_batch(
    batch: Sequence[ReadyPicture], mask_threshold: float, model: LoadedModel
) -> Iterator[RunPicture | UnusedPicture]:
    """The network's outputs for each picture; where memory runs out, those of one half after the other's."""
    canvas = make_batch([picture.prepared.resized for picture in batch], model.canvas_multiple)
    try:
        outputs = model.engine.infer(canvas, np.full(len(batch), mask_threshold, dtype=np.float32))
    except DeviceMemoryError as error:
        if len(batch) == 1:
            yield UnusedPicture(batch[0].number, error)
            return
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            yield from _run_batch(half, mask_threshold, model)
    else:
        yield from (RunPicture(picture, outputs.image(index)) for index, picture in enumerate(batch))
