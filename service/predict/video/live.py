"""A camera's frames, which come in their own time: of those that nobody has taken yet, the newest."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator

from service.predict.video.reading import VideoPicture

_PATIENCE_S = 2.0  # for a camera that sends nothing


class LiveFrames:
    """Takes frames in a thread of its own as they come, so that an answer is of what the camera sees now.

    Args:
        frames: made, and closed, in the thread.
        most: frames that are on their way through the network; the next is taken when one of them is answered.
    """

    def __init__(self, frames: Generator[VideoPicture], most: int) -> None:
        self._frames = frames
        self._newest: list[VideoPicture] = []  # or none
        self._changed = threading.Condition()
        self._room = most
        self._is_over = self._is_closed = False
        self._failure: BaseException | None = None
        # A camera that sends nothing must not keep the program from ending.
        self._thread = threading.Thread(target=self._take_all, name="camera", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[VideoPicture]:
        """The newest frame each time. Raises what making frames raised."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: (self._newest and self._room > 0) or self._is_over or self._is_closed)
                if self._is_closed or not self._newest:
                    break
                self._room -= 1
                frame = self._newest.pop()
            yield frame
        if self._failure is not None:
            raise self._failure

    def answered(self) -> None:
        """Note that one of the frames has left the network."""
        with self._changed:
            self._room += 1
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread with the frame that it waits for, and wait a moment for that."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    def _take_all(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self._newest = [frame]
                    self._changed.notify_all()
                if self._is_closed:
                    break
        except BaseException as error:
            self._failure = error
        finally:
            self._frames.close()
            with self._changed:
                self._is_over = True
                self._changed.notify_all()
