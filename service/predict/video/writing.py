"""An annotated video: H.264 in an MP4, which every browser and player shows, with the times of its frames."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

# A small file that is made fast: x264's preset takes a third of the time of its default.
_ENCODER = {"preset": "veryfast", "crf": "20", "bf": "0"}
# The file is written in fragments of two seconds, so that it can be played whatever ends the program, and becomes an
# ordinary one at its end. Its edit list keeps a beginning that is not at 0, to a 90,000th of a second.
_CONTAINER = {
    "movflags": "hybrid_fragmented+frag_keyframe+delay_moov",
    "frag_duration": "2000000",
    "use_editlist": "1",
    "movie_timescale": "90000",
}
_BEHIND = 4  # frames that wait to be encoded
_BT709 = 1  # as ITU-T H.273 numbers its matrix


class VideoWriter:
    """Writes a video to a file, which appears with its first frame; an older one is replaced.

    Frames of another size than the first are resized to its. One row or column is repeated where a side is odd, which
    the usual layout of H.264 cannot have.

    Frames are encoded in a thread, a few of them behind. What is raised there is raised by the next call.

    Args:
        path: of the file.
        rate: frames a second, about.
        threads: that encode.
    """

    def __init__(self, path: Path, rate: Fraction, threads: int) -> None:
        self._path, self._rate, self._threads = path, rate, threads
        self._container: av.container.OutputContainer | None = None
        self._stream: VideoStream | None = None
        self._reformatter = VideoReformatter()
        self._last: Fraction | None = None  # seconds
        self._failure: OSError | None = None
        self._thread = ThreadPoolExecutor(1, "video")
        self._behind: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, image: NDArray[np.uint8], pts: int, duration: int, time_base: Fraction) -> None:
        """Add the next frame. Raises OSError where the video cannot be written.

        Args:
            image: RGB and a byte that says nothing, [height, width, 4].
            pts: when it is shown, in units of the time base.
            duration: for how long, in the same.
            time_base: seconds.
        """
        self._behind.append(self._thread.submit(self._encode, image, pts, duration, time_base))
        if len(self._behind) > _BEHIND:
            self._behind.popleft().result()

    def close(self) -> None:
        """Write what is left. Raises OSError if it cannot be written."""
        with self._thread:
            self._behind.append(self._thread.submit(self._finish))
        while self._behind:
            self._behind.popleft().result()

    def _encode(self, image: NDArray[np.uint8], pts: int, duration: int, time_base: Fraction) -> None:
        if self._failure is not None:  # FFmpeg crashes where it is asked for more
            raise self._failure
        try:
            stream = self._stream or self._open(image.shape[0], image.shape[1], time_base)
            frame = self._frame(image, stream)
            frame.pts, frame.duration, frame.time_base = self._later(pts, time_base), duration, time_base
            assert self._container is not None
            self._container.mux(stream.encode(frame))
        except FFmpegError as error:
            self._failure = self._os_error(error)
            raise self._failure from error

    def _finish(self) -> None:
        container, stream, self._container, self._stream = self._container, self._stream, None, None
        if container is None or stream is None:
            return
        try:
            with container:
                container.mux(stream.encode(None))
        except FFmpegError as error:
            raise self._os_error(error) from error

    def _open(self, height: int, width: int, time_base: Fraction) -> VideoStream:
        self._container = av.open(str(self._path), "w", format="mp4", options=_CONTAINER)
        stream = self._container.add_stream("libx264", rate=self._rate.limit_denominator(1001), options=_ENCODER)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        codec: VideoCodecContext = stream.codec_context
        codec.time_base, codec.thread_count = time_base, self._threads
        codec.flags |= av.codec.context.Flags.frame_duration
        codec.colorspace, codec.color_range = _BT709, ColorRange.MPEG.value
        codec.color_primaries, codec.color_trc = ColorPrimaries.BT709.value, ColorTrc.BT709.value
        self._stream = stream
        return stream

    def _frame(self, image: NDArray[np.uint8], stream: VideoStream) -> VideoFrame:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        return self._reformatter.reformat(
            VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="rgba"),
            width=stream.width,
            height=stream.height,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )

    def _later(self, pts: int, time_base: Fraction) -> int:
        """The frame's time, or the next one where a broken file does not go forward."""
        if self._last is not None and pts * time_base <= self._last:
            pts = int(self._last / time_base) + 1
        self._last = pts * time_base
        return pts

    def _os_error(self, error: FFmpegError) -> OSError:
        return OSError(error.errno, error.strerror or str(error), str(self._path))
