"""Puts images on a canvas in a thread of its own, so that the next batch is ready when the engine is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.runtime.preprocess import Batch, make_batch

Images = Sequence[NDArray[np.uint8]]  # each [h, w, 3], RGB, resized


class CanvasMaker:
    """Makes batches, and keeps at most one that is made ahead of its time. Only the event loop calls it."""

    def __init__(self, multiple: int) -> None:
        """Make canvases whose sides are multiples of so many pixels."""
        self._multiple = multiple
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="canvas")
        self._ahead: tuple[Images, Future[Batch]] | None = None

    def prepare(self, images: Images) -> None:
        """Begin a batch that is likely to be next, in place of one that was begun before.

        An image that goes alone lies on its canvas already, and nothing is begun.
        """
        self.forget()
        if len(images) > 1:
            self._ahead = (images, self._thread.submit(make_batch, images, self._multiple))

    def take(self, images: Images) -> Callable[[], Batch]:
        """What gives the batch of these images, in the engine's thread: the one made ahead if it is of the same, else a
        new one.
        """
        if (ahead := self._ahead) is not None and any(a is b for a in ahead[0] for b in images):
            self._ahead = None  # it is used, or of no use any more; one of others may still be
            if len(ahead[0]) == len(images) and all(a is b for a, b in zip(ahead[0], images, strict=True)):
                return ahead[1].result
            ahead[1].cancel()
        return partial(make_batch, images, self._multiple)

    def forget(self) -> None:
        """Let go of what was made ahead."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def close(self) -> None:
        """Make nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)
