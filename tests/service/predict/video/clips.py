"""Videos that tests make: each frame one red, which FakeEngine knows it by, or whatever picture is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray


def red_frames(count: int, size: tuple[int, int] = (64, 64)) -> list[NDArray[np.uint8]]:
    """Frames of (height, width), whose reds count from 0."""
    frames = np.zeros((count, *size, 3), dtype=np.uint8)
    frames[..., 0] = np.arange(count)[:, None, None]
    return list(frames)


def write_clip(
    path: Path,
    frames: Iterable[NDArray[Any]],
    *,
    codec: str = "ffv1",
    pix_fmt: str = "bgr0",
    of_frames: str = "rgb24",
    rate: int = 10,
    times_ms: Sequence[int] | None = None,
    rotation: tuple[int, bool] | None = None,
    pixel_aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    **of_codec: Any,
) -> Path:
    """Write arrays [height, width, channels] as a video; lossless unless told otherwise.

    Args:
        path: of the file, whose ending tells the container.
        frames: of one size.
        codec: FFmpeg's name of the encoder.
        pix_fmt: FFmpeg's name of the layout that is encoded.
        of_frames: the same of the arrays.
        rate: frames a second.
        times_ms: when each frame is shown, for a variable rate.
        rotation: degrees counterclockwise, and whether it is mirrored after that.
        pixel_aspect: width of a pixel by its height.
        options: of the encoder.
        container: options of the container.
        of_codec: attributes of the encoder and, where they have them, of frames.
    """
    with av.open(str(path), "w", options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, VideoStream)
        time_base = Fraction(1, rate) if times_ms is None else Fraction(1, 1000)
        stream.pix_fmt, stream.codec_context.time_base = pix_fmt, time_base
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        for name, value in of_codec.items():
            setattr(stream.codec_context, name, value)
        for number, array in enumerate(frames):
            if number == 0:
                stream.height, stream.width = array.shape[:2]
            frame = VideoFrame.from_ndarray(array, format=of_frames).reformat(format=pix_fmt)
            frame.pts, frame.time_base = number if times_ms is None else times_ms[number], time_base
            for name in of_codec.keys() & {"color_trc", "color_primaries", "colorspace", "color_range"}:
                setattr(frame, name, of_codec[name])
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def noise(count: int) -> list[NDArray[np.uint8]]:
    """Frames of 64 x 64 that compress to about one size."""
    return list(np.random.default_rng(0).integers(0, 255, (count, 64, 64, 3), np.uint8))


def shown(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """When each frame of a video is shown, in seconds, and its pixels, RGB [height, width, 3]."""
    with av.open(str(path)) as container:
        return [
            (float(frame.time), np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8))
            for frame in container.decode(video=0)
        ]
