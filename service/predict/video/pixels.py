"""A decoded frame as people see it: upright RGB with square pixels, whatever its colours and depth."""

from __future__ import annotations

from fractions import Fraction
from typing import cast

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

_UNKNOWN_COLORSPACE = 2  # of ITU-T H.273; FFmpeg would take BT.601
_LEAST_HD = 720  # lines, from which it is BT.709, as players have it
_HDR = frozenset({ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67})  # PQ and HLG


class RgbFrames:
    """Makes RGB of a video's frames, in one thread; what the conversion of HDR is made of is kept between them.

    Args:
        stream: whose frames these are.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._reformatter = VideoReformatter()
        self._pixel_aspect = stream.sample_aspect_ratio or Fraction(1)

    def of(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """RGB and a byte that says nothing, [height, width, 4], contiguous; perhaps in the frame's own memory.

        Transparency lies over white, as it does in pictures.
        """
        has_alpha = any(component.is_alpha for component in frame.format.components)
        is_hdr, width, height = frame.color_trc in _HDR, frame.width, frame.height
        if self._pixel_aspect > 1:
            width = round(width * self._pixel_aspect)
        else:
            height = round(height / self._pixel_aspect)
        unknown = frame.colorspace == _UNKNOWN_COLORSPACE and not frame.format.is_rgb
        converted = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="rgba" if has_alpha else "rgb0",
            src_colorspace=Colorspace.ITU709 if unknown and frame.height >= _LEAST_HD else None,
            dst_color_trc=ColorTrc.BT709 if is_hdr else None,
            dst_color_primaries=ColorPrimaries.BT709 if is_hdr else None,
        )
        plane = converted.planes[0]
        rows = np.frombuffer(cast("bytes", plane), dtype=np.uint8).reshape(height, plane.line_size)
        pixels = np.ascontiguousarray(rows[:, : 4 * width]).reshape(height, width, 4)  # most have nothing between rows
        return _upright(_over_white(pixels) if has_alpha else pixels, frame)


def _over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if rgba[..., 3].min() == 255:
        return rgba
    picture = Image.fromarray(rgba, "RGBA")
    white = Image.new("RGBA", picture.size, "white")
    white.paste(picture, mask=picture)
    return np.asarray(white)


def _upright(image: NDArray[np.uint8], frame: VideoFrame) -> NDArray[np.uint8]:
    """The image turned and mirrored by its display matrix (ISO 14496-12, 6.2.2) to the nearest quarter turn."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # (x, y) lies at (a x + c y, b x + d y).
    a, b, _, c, d = (int(value) for value in np.frombuffer(cast("bytes", matrix), dtype=np.int32)[:5])
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(1, 0, 2)
        a, d = c, b
    image = image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(image)
