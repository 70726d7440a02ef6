"""Frames of videos and cameras, upright and as RGB, with their times: PyAV, which is FFmpeg's libraries.

OpenCV would do less here: it hides the frames' own times, counts no broken frames, takes no pipe, and writes H.264 only
where its build was allowed to.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from model.runtime.decode import ImageLimits
from model.runtime.picture_memory import picture_in
from service.images.prepare import ImageRules, prepare_decoded
from service.images.task import Prepared
from service.predict.files import STANDARD_STREAM
from service.predict.video.deinterlacing import Deinterlacer
from service.predict.video.files import VideoFile
from service.predict.video.pixels import RgbFrames
from service.process.trace import Trace

_USUAL_RATE = Fraction(25)  # frames a second, where nothing says how many
_MISSING_SECONDS = Fraction(1, 2)  # a video that ends so much before its end is cut off


class VideoError(Exception):
    """A video, or a camera, that cannot be used; the message is one line."""


@dataclass(eq=False)
class VideoPicture:
    """A frame of a video, which is a PictureSource, see there."""

    number: int  # among the frames of the video, broken ones as well, from 0
    pts: int  # when it is shown since the beginning, in units of the video's time base
    duration: int  # how long, in the same; 0 where that is unknown
    time_base: Fraction  # seconds
    image: NDArray[np.uint8] | None  # [height, width, 4], see `RgbFrames`; None once nobody needs it

    @property
    def seconds(self) -> float:
        """When it is shown, since the beginning."""
        return round(float(self.pts * self.time_base), 6)

    def prepare(self, rules: ImageRules, trace: Trace, *, draws: bool) -> Prepared:
        """See PictureSource."""
        assert self.image is not None, "a frame is prepared once"
        prepared = prepare_decoded(picture_in(self.image), rules, trace)
        if not draws:
            self.image = None
        return prepared


class VideoReader:
    """Reads one video from its beginning to its end.

    Args:
        file: the video or camera.
        limits: a frame of more pixels is refused.

    Raises:
        VideoError: there is no video that can be read.
        OSError: the file cannot be read.
    """

    def __init__(self, file: VideoFile, limits: ImageLimits) -> None:
        self.broken = 0  # frames that could not be read, so far
        self._container = _opened(file)
        self._stream = _stream_of(self._container)
        width, height = self._stream.width, self._stream.height
        if max(width, height) > limits.max_side or width * height > limits.max_pixels:
            raise VideoError(f"its frames have more than {limits.max_pixels} pixels, or a side above {limits.max_side}")
        self._stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}  # whatever comes later
        self._stream.thread_type = "AUTO"
        self.read = 0  # frames so far, broken ones as well
        self._read_to = Fraction(0)  # seconds
        self._failure: str | None = None  # why there is no more
        self._pictures = RgbFrames(self._stream)
        # Where the file's times begin, at which a player's clock is at 0.
        start: int | None = getattr(self._container, "start_time", None)
        self._begin: Fraction | None = None if start is None else Fraction(start, av.time_base)  # seconds
        self._announced_seconds = self._announced()

    @property
    def rate(self) -> Fraction:
        """Frames a second, on average or as announced."""
        return self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE

    @property
    def count(self) -> int | None:
        """Frames, as announced or about; None where nothing says it."""
        if self._stream.frames:
            return self._stream.frames
        seconds = self._announced_seconds
        return None if seconds is None else max(1, round(seconds * self.rate))

    def troubles(self) -> list[str]:
        """What could not be read, once the last frame is read."""
        troubles = []
        if self.broken:
            troubles.append(f"{self.broken} of {self.read} frames are broken and left out")
        announced = self._announced_seconds
        if announced is not None and announced - self._read_to > max(_MISSING_SECONDS, 2 / self.rate):
            troubles.append(f"it breaks off after {float(self._read_to):.1f} of {float(announced):.1f} seconds")
        elif self._failure is not None:
            troubles.append(f"it breaks off after {float(self._read_to):.1f} seconds: {self._failure}")
        return troubles

    def frames(self, every: int) -> Generator[VideoPicture]:
        """Each `every`th frame that is whole, from the first one on. The file is closed at the end.

        Raises VideoError if there is none.
        """
        with self._container:
            begin = self._begin
            for shown in self._shown_frames():
                number, self.read = self.read, self.read + 1
                time_base = shown.time_base or 1 / self.rate
                pts = round(number / (self.rate * time_base)) if shown.pts is None else shown.pts
                begin = pts * time_base if begin is None else begin
                pts, duration = pts - round(begin / time_base), shown.duration or 0
                self._read_to = max(self._read_to, (pts + duration) * time_base)
                if shown.is_corrupt:
                    self.broken += 1
                elif number % every == 0:
                    yield VideoPicture(number, pts, duration, time_base, self._pictures.of(shown))
        if self.read == self.broken:
            raise VideoError("there is no frame in it that can be read" if self.read else "there is no frame in it")

    def _shown_frames(self) -> Iterator[VideoFrame]:
        """Frames in the order in which they are shown, those that are interlaced as whole pictures."""
        deinterlacer = Deinterlacer(self._stream)
        for frame in self._decoded():
            yield from deinterlacer.take(frame)
        yield from deinterlacer.finish()

    def _decoded(self) -> Iterator[VideoFrame]:
        """Frames as far as the file can be read; what cannot be decoded is counted."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError as error:  # what the decoder holds still counts
                self._failure = error.strerror or str(error)
                with suppress(FFmpegError):
                    yield from self._stream.decode(None)
                return
            try:
                yield from packet.decode()
            except InvalidDataError:
                self.read += 1
                self.broken += 1

    def _announced(self) -> Fraction | None:
        """Seconds from the beginning to the end of the last frame, or None."""
        stream, begin = self._stream, self._begin or Fraction(0)
        if stream.duration is not None and stream.time_base is not None:
            return (stream.start_time or 0) * stream.time_base - begin + stream.duration * stream.time_base
        others = [other for other in self._container.streams if other is not stream]
        if self._container.duration is None or others:  # of which one may be the longest
            return None
        return Fraction(self._container.duration, av.time_base)


def _opened(file: VideoFile) -> InputContainer:
    name = str(file.path)
    options = {"protocol_whitelist": "file"}  # a playlist among the files fetches nothing
    try:
        if name == STANDARD_STREAM:
            return av.open(sys.stdin.buffer, "r")
        if not file.is_live:
            return av.open(f"file:{name}", "r", options=options)
        return _camera(file)
    except InvalidDataError:
        cause = "it is no video, or is cut off or broken at a place without which nothing of it can be read"
        raise VideoError(cause) from None
    except FFmpegError as error:
        raise _reason(file, error) from None


def _camera(file: VideoFile) -> InputContainer:
    number = file.camera
    if sys.platform == "darwin":
        return av.open(str(0 if number is None else number), "r", format="avfoundation", options={"framerate": "30"})
    if sys.platform == "win32":
        raise VideoError("cameras are read on Linux and macOS; elsewhere, pipe a video to standard input")
    return av.open(str(file.path) if number is None else f"/dev/video{number}", "r", format="v4l2")


def _reason(file: VideoFile, error: FFmpegError) -> Exception:
    """What is said of a file or camera that cannot be opened."""
    said = error.strerror or str(error)
    if file.is_live:
        where = "the camera" if file.camera is None else f"camera {file.camera}"
        return VideoError(f"{where} cannot be opened: {said}")
    return VideoError(said)


def _stream_of(container: InputContainer) -> VideoStream:
    """The video's stream; the picture of an album is none."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise VideoError("it has sound and no video" if container.streams.audio else "there is no video in it")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    if getattr(stream, "codec_context", None) is None:  # which its type does not say
        raise VideoError("FFmpeg has no decoder here for its codec")
    return stream
