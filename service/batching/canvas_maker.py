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
        if self._is_ahead(images):
            return
        self.forget()
        if len(images) > 1:
            self._ahead = (images, self._thread.submit(make_batch, images, self._multiple))

    def of(self, images: Images) -> Callable[[], Batch]:
        """What gives the batch of these images, in the engine's thread: the one made ahead if it is of the same, else a
        new one. From when the engine may have called it until `spent`, nothing may be forgotten or prepared.
        """
        if self._ahead is not None and self._is_ahead(images):
            return self._ahead[1].result
        return partial(make_batch, images, self._multiple)

    def spent(self, images: Images) -> None:
        """Keep what was made ahead no longer if it is of any of these images, whose batch has begun."""
        if self._ahead is not None and any(a is b for a in self._ahead[0] for b in images):
            if not self._is_ahead(images):
                self._ahead[1].cancel()  # of no use any more
            self._ahead = None

    def forget(self) -> None:
        """Let go of what was made ahead."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def close(self) -> None:
        """Make nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_ahead(self, images: Images) -> bool:
        ahead = () if self._ahead is None else self._ahead[0]
        return len(ahead) == len(images) > 0 and all(a is b for a, b in zip(ahead, images, strict=True))
